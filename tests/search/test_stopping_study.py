"""Early stopping replayed over a table of ground truth that is made up: what it saves and loses, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import archsearch.search.truth
from archsearch.cli import app
from archsearch.errors import SpecError
from archsearch.registry import Registry, load_registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.tables.search import EarlyStopTable
from archsearch.search.truth.stopping_study import StoppingCase, studied
from archsearch.search.truth.table import TruthTable

SPEC = Path(archsearch.search.truth.__file__).with_name("three_layers.toml")
STEPS, LOOKS = 240, 6


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def small_spec() -> dict[str, Any]:
    """Two layers of five mixers on one task with two seeds."""
    data = SearchSpec.load(SPEC).to_json()
    data["model"]["n_layers"] = 2
    data["tasks"] = data["tasks"][:1]
    data["objectives"]["maximize"] = ["mqar.accuracy"]
    data["recipe"]["seeds"] = 2
    return data


@pytest.fixture(scope="module")
def table(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The more sliding windows the better, which are cheap too; all learn evenly."""
    path = tmp_path_factory.mktemp("truth") / "table.jsonl"
    problem = Problem.of(SearchSpec.from_dict(small_spec()), registry)
    lines: list[dict[str, Any]] = [{"kind": "table", "spec": problem.spec.to_json()}]
    for number, arch in enumerate(problem.space.all()):
        windows = sum(layer.mixer == "sliding" for layer in arch.layers)
        for seed in problem.search_seeds:
            final = 0.3 + 0.3 * windows + 0.001 * number + 0.01 * seed
            curve = [[STEPS * look // LOOKS, final * look / LOOKS] for look in range(1, LOOKS + 1)]
            ends = {"validation": {"accuracy": final}, "test": {"accuracy": final}}
            line = {"kind": "run", "digest": arch.digest, "pattern": "", "task": "mqar", "seed": seed, "steps": STEPS}
            lines.append({**line, "status": "complete", "learning_rate": 0.01, "curve": curve, **ends})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def posed(table: Path, registry: Registry) -> StoppingCase:
    return StoppingCase.of(TruthTable.load(table, registry))


def test_without_a_rule_all_steps_are_trained(posed: StoppingCase) -> None:
    found = posed.search("random", trials=12, seed=0, table=None)
    assert (len(found.complete), found.stopped, found.saved) == (12, [], 0.0)
    assert [trial.steps for trial in found.trained] == [trial.in_full for trial in found.trained] == [2 * STEPS] * 12


def test_a_rule_stops_the_same_candidates_before_their_end(posed: StoppingCase) -> None:
    plain = posed.search("random", trials=12, seed=0, table=None)
    found = posed.search("random", trials=12, seed=0, table=EarlyStopTable(others=1, grace=0.0))
    assert found.stopped
    assert [trial.digest for trial in found.trained] == [trial.digest for trial in plain.trained]
    assert 0 < found.saved < len(found.stopped) / 12
    assert found.wrongly == found.wrongly_true == 0


def test_a_search_with_one_task_and_one_seed_is_stopped_too(table: Path, registry: Registry) -> None:
    posed = StoppingCase.of(TruthTable.load(table, registry), seeds=1)
    found = posed.search("random", trials=25, seed=1, table=EarlyStopTable(others=1, grace=0.0))
    assert found.stopped
    assert {trial.seeds for trial in found.trained} == {(1,)}
    assert all(trial.stopped.startswith("stopped at step") for trial in found.trained if trial.stopped)


def test_more_trials_than_the_space_has_end_with_all_of_it(posed: StoppingCase) -> None:
    found = posed.search("random", trials=1000, seed=1, table=None)
    assert set(found.complete) == {arch.digest for arch in posed.case.feasible}
    assert found.share == 1.0


def test_rows_say_what_was_saved_and_lost(posed: StoppingCase) -> None:
    tables = [EarlyStopTable(others=others, grace=0.0) for others in (1, 1000)]
    some, none = studied(posed, samplers=["random"], tables=tables, trials=12, searches=2)
    assert 0.0 < some.saved < 1.0
    assert some.stopped > 0.0
    assert (none.saved, none.stopped, none.wrongly, none.wrongly_true) == (0.0, 0.0, 0.0, 0.0)
    assert none.volume == pytest.approx(some.volume_without) == none.volume_without
    assert some.volume <= some.volume_without + 1e-9  # random candidates are the same ones


def test_a_table_that_lacks_what_is_asked_for_is_refused(table: Path, registry: Registry, tmp_path: Path) -> None:
    part = tmp_path / "part.jsonl"
    part.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    held = TruthTable.load(part, registry)
    assert StoppingCase.of(held).seeds == 1
    assert held.left_out == ["left out: mqar, seed 1, of which the table has 24 of 25 rows"]
    with pytest.raises(SpecError, match=r"the table has 1 whole seeds of mqar.accuracy,state_bytes: 2 cannot"):
        StoppingCase.of(held, seeds=2)
    with pytest.raises(SpecError, match=r'no task "niah": it has mqar'):
        StoppingCase.of(held, tasks=["niah"])
    spec = small_spec()
    spec["recipe"]["learning_rates"] = [0.01, 0.001]
    head, *rows = table.read_text().splitlines()
    part.write_text("\n".join([json.dumps({**json.loads(head), "spec": spec}), *rows]))
    with pytest.raises(SpecError, match="2 learning rates and has the curve of the best one alone"):
        StoppingCase.of(TruthTable.load(part, registry))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "stopping", *map(str, arguments)])


def test_the_command_prints_and_writes_the_figures(table: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    rule = ("--others", "1", "--noise", "1", "--grace", "0,0.5")
    done = call(table, *rule, "--searches", 2, "--trials", 10, "--sampler", "random", "--json", file)
    assert done.exit_code == 0, done.output
    data = json.loads(file.read_text())
    assert (data["tasks"], data["seeds"], data["candidates"]) == (["mqar"], 2, 25)
    assert [row["table"]["grace"] for row in data["rows"]] == [0.0, 0.5]
    for row in data["rows"]:
        assert f"{row['saved']:.1%}" in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--others", "0"), r"search.early_stop.others = 0"),
        (("--noise", "much"), r'--noise "much": give numbers by commas'),
        (("--sampler", "rondom"), r'--sampler "rondom" is none.*random'),
    ],
    ids=["others", "noise", "sampler"],
)
def test_what_makes_no_sense_is_refused(table: Path, arguments: tuple[str, str], told: str) -> None:
    done = call(table, *arguments, "--trials", 2, "--searches", 1)
    assert isinstance(done.exception, SpecError)
    with pytest.raises(SpecError, match=told):
        raise done.exception
