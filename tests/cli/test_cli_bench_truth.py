"""The commands of ground truth: a table that is measured and gone on with, searches against it, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_spec import tiny_spec
from typer.testing import CliRunner, Result

from archsearch.cli import app
from archsearch.errors import ArchsearchError, SpecError
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.truth.measure import cells
from archsearch.search.truth.table import TruthTable


def call(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four architectures on one task with two seeds."""
    path = tmp_path_factory.mktemp("truth") / "tiny.toml"
    text = tiny_spec(2, recipe="seeds = 2").replace("trials = 2", "trials = 4")
    path.write_text(text.replace("[space.sliding]", "[space.full]\nrope = [0.0]\n[space.sliding]\nrope = [0.0]"))
    return path


@pytest.fixture(scope="module")
def table(spec: Path) -> Path:
    """Its table, as it would be measured: the more full layers the better, and a little luck with the second seed."""
    problem, path = Problem.of(SearchSpec.load(spec), load_registry()), spec.with_name("tiny.jsonl")
    lines = [{"kind": "table", "spec": problem.spec.to_json()}]
    for cell in cells(problem):
        value = {"accuracy": 0.4 * [layer.mixer for layer in cell.arch.layers].count("full") + 0.1 + 0.05 * cell.seed}
        measured = {"status": "complete", "learning_rate": 0.001, "curve": [], "steps": 2}
        named = {"pattern": problem.pattern(cell.arch), "digest": cell.arch.digest, "task": cell.name}
        lines.append({"kind": "run", **named, "seed": cell.seed, **measured, "validation": value, "test": value})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.slow
def test_a_table_is_measured_in_parts_and_gone_on_with(spec: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.jsonl"
    stopped = call("bench", "truth", spec, file, "--minutes", 0, "--part", "1/2")
    assert "8 trainings in all" in stopped.output
    assert "nothing was trained" in stopped.output
    first = call("bench", "truth", spec, file, "--part", "1/2")
    assert first.exit_code == 0, first.output
    assert "3 left" in first.output
    assert "part 1/2 is complete" in first.output
    second = call("bench", "truth", spec, file)
    assert second.output.count(" left, about ") == 4
    assert "the table is complete" in second.output
    found = TruthTable.load(file, load_registry())
    assert set(found.columns) == {("mqar", 0), ("mqar", 1)}


def test_a_complete_table_is_left_as_it_is(spec: Path, table: Path) -> None:
    before = table.read_bytes()
    assert "the table is complete" in call("bench", "truth", spec, table).output
    assert table.read_bytes() == before


def test_searches_against_it_are_told_and_written(table: Path, tmp_path: Path) -> None:
    options = ["--sampler", "random", "--sampler", "ehvi", "--seeds", 2, "--json", tmp_path / "found.json"]
    done = call("bench", "search", "--table", table, *options)
    assert done.exit_code == 0, done.output
    assert "mqar.accuracy, state_bytes: trials to 95%" in done.output
    assert "2 searches of 4 trials" in done.output
    assert "never" not in done.output, "two searches bound no median, and each has found all"
    assert "(?..?)" in done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["sampler"] for one in found["results"]] == ["random", "ehvi"]
    assert found["columns"] == [["mqar", 0], ["mqar", 1]]
    for one in found["results"]:
        assert one["curve"]["own"][-1] == 1.0  # all four were tried
        assert 1 <= one["trials_to_95"]["own"]["median"] <= 4
        assert one["of_random"]["own"]["median"] > 0.0
    assert found["results"][0]["of_random"]["own"]["median"] == 1.0


def test_searches_that_are_cut_off_leave_open_what_they_have_not_found(table: Path, tmp_path: Path) -> None:
    options = ["--sampler", "random", "--seeds", 6, "--trials", 2, "--json", tmp_path / "found.json"]
    cut = call("bench", "search", "--table", table, *options, "--cut-off")
    gone_on = call("bench", "search", "--table", table, *options)
    assert ">2" in cut.output
    assert ">2" not in gone_on.output
    (found,) = json.loads((tmp_path / "found.json").read_text())["results"]
    assert max(found["each_trials_to_95"]["own"]) in (3.0, 4.0)
    assert len(found["curve"]["own"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["truth", "SPEC", "TABLE", "--part", "3/2"], "3/2"),
        (["truth", "SPEC", "TABLE", "--part", "half"], "half"),
        (["truth", "none.toml", "TABLE"], "none.toml"),
        (["truth", "OTHER", "TABLE"], "another file"),
        (["truth", "WIDE", "NEW"], "at most 1,000,000"),
        (["search", "--table", "none.jsonl"], "archsearch bench truth"),
        (["search", "--table", "TABLE", "--sampler", "ehv"], 'did you mean "ehvi"'),
        (["search", "--table", "TABLE", "--objectives", "mqar.precision,state_bytes"], "mqar.precision"),
        (["search", "--table", "TABLE", "--second-seeds", "0.25"], "three seeds"),
        (["search", "--table", "TABLE", "--objectives", "mqar.accuracy,state_byte"], 'did you mean "state_bytes"'),
        (["stopping", "TABLE", "--others", "inf"], "search.early_stop.others"),
        (["stopping", "TABLE", "--others", "nan"], "search.early_stop.others"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_used_is_refused_by_a_sentence(
    spec: Path, table: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    other, wide = tmp_path / "other.toml", tmp_path / "wide.toml"
    other.write_text(spec.read_text().replace("d_model = 16", "d_model = 32"))
    wide.write_text(spec.read_text().replace("n_layers = 2", "n_layers = 40"))
    files = {"SPEC": spec, "TABLE": table, "OTHER": other, "WIDE": wide, "NEW": tmp_path / "new.jsonl"}
    refused = call("bench", *(files.get(word, word) for word in words))
    assert isinstance(refused.exception, ArchsearchError)
    assert isinstance(refused.exception, SpecError)
    assert told in str(refused.exception)


def test_a_file_that_cannot_be_written_is_refused_before_the_searches(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsearch.search.truth.study.run_jobs", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr("archsearch.search.truth.stopping_study.studied", lambda *_, **__: pytest.fail("searched"))
    for words in (["search", "--table", table], ["stopping", table]):
        refused = call("bench", *words, "--json", tmp_path / "none" / "found.json")
        assert "found.json: No such file or directory: name another file" in str(refused.exception)
