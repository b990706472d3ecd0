"""``archsearch pareto``: the right points, what they are valid for, and every way in which they are given."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import FLAT, OBJECTIVES, SPEC, add_trial
from matplotlib.image import imread
from typer.testing import Result

from archsearch.analysis.answer import read_answer
from archsearch.analysis.axes import choose_axes
from archsearch.cli.picture import write_picture
from archsearch.errors import ArchsearchError, SpecError, StorageError
from archsearch.storage import Store

Run = Callable[..., Result]
WINDOW = {"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}


@pytest.mark.parametrize("odd", [None, 3, "x", [1], {"context": "x"}], ids=str)
def test_a_front_is_shown_whatever_the_spec_has_become(run: Run, trials: dict[str, int], url: str, odd: object) -> None:
    shown = json.loads(run("pareto", "quick", "--json").stdout)
    with Store.open(url) as store:
        search = store.search("quick").id
        for spec in ({**SPEC, key: odd} for key in ("model", "recipe", "objectives", "tasks", "space")):
            store.set_spec(search, spec)
            again = run("pareto", "quick", "--json")
            assert (again.exit_code, again.exception) == (0, None)
            assert json.loads(again.stdout)["points"] == shown["points"]
            assert "valid for" in run("pareto", "quick").stdout


def test_json_has_the_front_and_where_it_is_valid(run: Run, trials: dict[str, int]) -> None:
    data = json.loads(run("pareto", "quick", "--json").stdout)
    assert [point["trial"] for point in data["points"]] == [trials["pure-linear"], trials["delta"], trials["confirm"]]
    best = data["points"][-1]
    assert best["pattern"] == "linear(update=delta) full"
    assert best["seeds"] == [1_000_000, 1_000_001]
    assert best["confirmed"] is True
    assert best["objectives"] == {"recall": pytest.approx(0.92), "state_bytes": 8 * 2**20, "decode_flops": 2.2e6}
    assert best["spread"]["recall"] == {
        "std": pytest.approx(0.01414, abs=1e-4),
        "min": pytest.approx(0.91),
        "max": pytest.approx(0.93),
    }
    assert [point["trial"] for point in data["references"]] == [trials["all-full"]]
    assert data["references"][0]["within_budget"] is False
    assert [point["trial"] for point in data["dominated"]] == [trials["worse"]]
    assert [point["trial"] for point in data["not_exercised"]] == [trials["flat"]]
    assert data["search"] == "quick"
    assert data["context"] == 32768
    scale = {key: data["scale"][key] for key in ("d_model", "layers", "steps", "seq_len")}
    assert scale == {"d_model": 64, "layers": 2, "steps": 300, "seq_len": 64}
    assert data["tasks"][0]["label"] == "mqar:capacity"
    assert [objective["name"] for objective in data["objectives"]] == ["recall", "state_bytes", "decode_flops"]
    assert data["objectives"][0]["chance"] == 0.03
    assert data["objectives"][1]["context"] == 32768


def test_the_table_tells_all_that_must_be_known(run: Run, trials: dict[str, int]) -> None:
    shown = run("pareto", "quick").stdout
    for text in (
        "unconfirmed, reference, over budget",
        "confirmed",
        "8 MiB",
        "0.920 (0.910..0.930)",
        "32,768 tokens",
        "d_model 64",
        "mqar:capacity",
        "a guess has recall 0.030",
        "64 tokens",
    ):
        assert text in shown, text


def test_the_drawing_numbers_the_front(run: Run, trials: dict[str, int]) -> None:
    lines = run("pareto", "quick").stdout.splitlines()
    canvas = "".join(line for line in lines if "│" in line or "┤" in line)
    assert all(mark in canvas for mark in ("1", "2", "3", "R", "·", "x"))


def test_csv_has_every_measured_candidate(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    assert run("pareto", "quick", "--csv", "front.csv").exit_code == 0
    with (tmp_path / "front.csv").open() as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    assert set(rows) == {trials[name] for name in ("all-full", "pure-linear", "confirm", "worse", "delta", "flat")}
    assert rows[trials["confirm"]]["on_front"] == "True"
    assert rows[trials["flat"]]["on_front"] == "False"
    assert rows[trials["confirm"]]["seeds"] == "1000000 1000001"
    assert "d_model 64" in rows[trials["worse"]]["valid_for"]


def test_no_cell_of_the_csv_is_a_formula_or_steers(run: Run, url: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        search = store.create_search("odd", SPEC, OBJECTIVES)
        add_trial(store, search, "=1+1\x1b[2J", costs=(1e6, 1e4), accuracies=(0.5,))
    assert run("pareto", "odd", "--csv", "odd.csv").exit_code == 0
    text = (tmp_path / "odd.csv").read_text()
    assert "'=1+1\\x1b[2J" in text
    assert "\x1b" not in text


def test_png_is_a_picture(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    result = run("pareto", "quick", "--png", "front.png", "--x", "decode_flops")
    assert "written: front.png" in result.stdout
    pixels = imread(tmp_path / "front.png")
    assert pixels.shape[0] > 700
    assert pixels.shape[1] > 1000
    assert pixels.std() > 0.05


def test_png_and_json_go_together(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    assert json.loads(run("pareto", "quick", "--json", "--png", "front.png").stdout)["points"]
    assert (tmp_path / "front.png").exists()


def test_crowded_points_get_apart_numbers(run: Run, url: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        search = store.create_search("crowd", SPEC, OBJECTIVES)
        for index in range(14):
            pattern = f"linear linear(key_dim={index})"
            add_trial(store, search, pattern, costs=(1e6 + index, 1e4 - index), accuracies=(0.5 + index / 1e4,))
        answer = read_answer(store, "crowd")
    assert len(answer.front) == 14
    across, upwards = choose_axes(answer, None, None)
    write_picture(answer, across, upwards, tmp_path / "crowd.png")
    assert (tmp_path / "crowd.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "axes"),
    [
        ((None, None), ("state_bytes", "recall")),
        (("decode_flops", None), ("decode_flops", "recall")),
        ((None, "decode_flops"), ("state_bytes", "decode_flops")),
        (("recall", None), ("recall", "state_bytes")),
    ],
)
def test_axes(
    run: Run, trials: dict[str, int], url: str, words: tuple[str | None, str | None], axes: tuple[str, str]
) -> None:
    with Store.open(url, read_only=True) as store:
        answer = read_answer(store, "quick")
    chosen = choose_axes(answer, *words)
    assert (chosen[0].name, chosen[1].name) == axes


def test_an_unknown_objective_names_the_nearest(run: Run, trials: dict[str, int]) -> None:
    error = run("pareto", "quick", "--x", "recal").exception
    assert isinstance(error, SpecError)
    assert 'did you mean "recall"' in str(error)


def test_an_unknown_search_names_the_nearest(run: Run, trials: dict[str, int]) -> None:
    error = run("pareto", "quikc").exception
    assert isinstance(error, StorageError)
    assert 'did you mean "quick"' in str(error)


@pytest.mark.parametrize("option", ["--png", "--csv"])
def test_a_file_that_cannot_be_written(run: Run, trials: dict[str, int], option: str) -> None:
    error = run("pareto", "quick", option, "none/file.png").exception
    assert isinstance(error, ArchsearchError)
    assert "none/file.png" in str(error)
    assert "name another file" in str(error)


OVER = {"state_bytes@32768": 0.5}


@pytest.mark.parametrize(
    ("state", "trial", "told"),
    [
        ("running", None, "has no trials yet (it is running): ask again"),
        ("cancelled", {"state": "preempted"}, "no complete trial yet (1 preempted; it is cancelled): `archsearch res"),
        ("complete", {"state": "infeasible", "violations": OVER}, "(1 infeasible; it is complete)"),
        ("complete", {"accuracies": (0.5,), "kind": "reference", "violations": OVER}, "over budget"),
        ("complete", {"accuracies": (0.5,), "unexercised": [FLAT]}, "the sparsity acted"),
    ],
    ids=["no trials", "stopped", "infeasible", "references alone", "not exercised"],
)
def test_no_front_says_why(run: Run, url: str, state: str, trial: dict[str, object] | None, told: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("empty", SPEC, OBJECTIVES)
        if trial is not None:
            add_trial(store, search, "full full", costs=(1e6, 1e4), **trial)  # type: ignore[arg-type]
        store.set_search_state(search, state)
    result = run("pareto", "empty")
    assert result.exit_code == 0
    assert told in " ".join(result.stdout.split())
    data = json.loads(run("pareto", "empty", "--json").stdout)
    assert data["points"] == []
    assert told in data["why_no_front"]


def test_nothing_to_draw_is_told(run: Run, url: str) -> None:
    with Store.open(url) as store:
        store.create_search("empty", SPEC, OBJECTIVES)
    error = run("pareto", "empty", "--png", "front.png").exception
    assert isinstance(error, ArchsearchError)
    assert "nothing to draw" in str(error)


def test_text_is_never_markup(run: Run, url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("odd", {**SPEC, "name": "odd"}, OBJECTIVES)
        add_trial(store, search, "[full]*2", costs=(1e6, 1e4), accuracies=(0.5,))
        add_trial(
            store, search, "[red]x[/red]", costs=(1e5, 1e3), accuracies=(None,), state="diverged", reason="[/b] at 3"
        )
    assert "[full]*2" in run("pareto", "odd").stdout
    shown = run("trials", "odd").stdout
    assert "[red]x[/red]" in shown
    assert "[/b] at 3" in shown


def test_a_search_that_ended_before_its_first_trial_says_how(run: Run, url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("tight", SPEC, OBJECTIVES)
        store.set_search_state(search, "infeasible", "none of 441 candidates meets the budget: raise [budget]")
    assert "none of 441 candidates meets the budget: raise [budget]" in run("pareto", "tight").stdout
