"""Rows of any shape: a page shows what is good, and names once what is left out."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from archsearch_dashboard.foreign import fitted
from archsearch_dashboard.report.document import report
from archsearch_dashboard.report.evidence import evidence_of
from archsearch_dashboard.shapes import PayloadShape
from archsearch_dashboard.shown_store import ShownStore
from dashboard_samples import OBJECTIVES, SPEC, every_state, measured, open_page, registry, texts, well
from grids import grid
from streamlit.testing.v1 import AppTest

from archsearch.analysis.answer import read_answer
from archsearch.storage import Store

PAGES = ("searches", "front", "architecture", "compare", "matters")
PAYLOAD = json.loads(json.dumps(measured("full(rope=0.0)*3", 0, 0.9)))
ARCH = {"model": {"d_model": 64}, "layers": [{"mixer": "full", "options": {}}]}
HUGE = 10**400
ANY: dict[str, Any] = {
    "null": None,
    "text": "<b>x</b>",
    "number": 3,
    "list": [1, None, "x"],
    "deep": {"a": [{"b": HUGE}]},
    "true": True,
    "long-number": 10**400,
}


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, int]]:
    """A database with one good search, to be damaged, and its trials."""
    path = tmp_path / "searches.db"
    monkeypatch.setenv("ARCHSEARCH_STORAGE", f"sqlite:///{path}")
    with Store.open(f"sqlite:///{path}") as store:
        return path, every_state(store)


def damage(path: Path, table: str, column: str, value: Any, where: str = "1") -> None:
    """Writes a value into a column as some other program might; JSON unless it is text of a plain column."""
    written = value if column in ("reason", "pattern") else json.dumps(value)
    with closing(sqlite3.connect(path)) as database, database:
        changed = database.execute(f"update {table} set {column} = ? where {where}", (written,))
        assert changed.rowcount


def seen(slug: str, **query: str) -> AppTest:
    """A page without an exception or an error, however damaged what it shows is."""
    return well(open_page(slug, **query))


def all_pages(trials: dict[str, int], name: str = "mixed") -> str:
    """Every page on the search "quick" and one of its trials; what they say."""
    said = [texts(seen(slug, search="quick", trial=str(trials[name]))) for slug in PAGES]
    said += [texts(seen("front", search="quick", below=tab)) for tab in ("Hypervolume", "All trials")]
    return "\n".join(said)


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


SPEC_PARTS = ("model", "tasks", "recipe", "budget", "objectives", "search")
SPECS = {
    **ANY,
    "empty": {},
    **{f"parts-{kind}": {**SPEC, **dict.fromkeys(SPEC_PARTS, value)} for kind, value in ANY.items()},
    "no-recipe": {**SPEC, "recipe": None},
    "context": {**SPEC, "objectives": {"context": "many"}},
    "budget-of-nothing": {**SPEC, "budget": {"elephants": "3", "state_bytes": "-1 GiB"}},
}


@pytest.mark.parametrize("spec", grid(SPECS, ["text", "parts-deep", "budget-of-nothing"]))
def test_a_spec_of_any_shape(damaged: tuple[Path, dict[str, int]], spec: Any) -> None:
    path, trials = damaged
    damage(path, "search", "spec", spec)
    said = "\n".join(texts(seen(slug, search="quick", trial=str(trials["failed"]))) for slug in PAGES)
    assert "on the front" in said
    assert "CUDA out of memory" in said


OBJECTIVE_LISTS: dict[str, list[Any]] = {
    **{kind: [value, *OBJECTIVES[1:]] for kind, value in ANY.items()},
    "empty": [],
    "no-direction": [{"name": "recall"}, *OBJECTIVES[1:]],
    "sideways": [{**OBJECTIVES[0], "direction": "sideways"}, *OBJECTIVES[1:]],
    "no-context": [OBJECTIVES[0], {**OBJECTIVES[1], "metric": "state_bytes"}, OBJECTIVES[2]],
    "text-context": [OBJECTIVES[0], {**OBJECTIVES[1], "metric": "state_bytes@<b>"}, OBJECTIVES[2]],
    "twice": [*OBJECTIVES, OBJECTIVES[0]],
    "a-column": [*OBJECTIVES, {"name": "trial", "direction": "minimize"}],
    "another-s-column": [*OBJECTIVES, {"name": "recall_min", "direction": "minimize"}],
}


@pytest.mark.parametrize("objectives", grid(OBJECTIVE_LISTS, ["deep", "empty", "a-column"]))
def test_objectives_of_any_shape(damaged: tuple[Path, dict[str, int]], objectives: list[Any]) -> None:
    path, trials = damaged
    damage(path, "search", "objectives", objectives)
    said = all_pages(trials)
    assert f"trial {trials['mixed']}, number" in said
    assert "mqar" in said


ARCHS = {
    **ANY,
    "no-model": without(ARCH, "model"),
    "no-layers": without(ARCH, "layers"),
    "other-name": {**ARCH, "layers": [{"mixer": "of no plugin"}]},
    "number-name": {**ARCH, "layers": [{"mixer": 3}]},
    "no-mixer": {**ARCH, "layers": [{"options": {}}]},
    "options": {**ARCH, "layers": [{"mixer": "full", "options": {"resolver": [1], "rope": HUGE}}]},
    "text-options": {**ARCH, "layers": [{"mixer": "full", "options": "rope"}]},
    "text-layers": {**ARCH, "layers": "full"},
    "model": {**ARCH, "model": {"d_model": HUGE, "n_heads": [2]}},
    "many": {**ARCH, "layers": [{"mixer": "full", "options": {}}] * 2_000},
}


@pytest.mark.slow
def test_architectures_of_any_shape(damaged: tuple[Path, dict[str, int]]) -> None:
    """Each trial has one of the shapes: every page, and the page of each."""
    path, trials = damaged
    for arch, trial in zip(ARCHS.values(), trials.values(), strict=False):
        damage(path, "trial", "arch", arch, f"id = {trial}")
    assert f"trial {trials['confirm-delta']}, number" in all_pages(trials, "confirm-delta")
    for name, trial in zip(ARCHS, trials.values(), strict=False):
        said = texts(seen("architecture", search="quick", trial=str(trial)))
        assert ("cannot be read, so that neither" in said) == (name not in ("no-model", "other-name", "options")), name
        seen("compare", search="quick", trials=f"{trial},{trials['confirm-delta']}")


def test_choices_and_excesses_of_any_shape(damaged: tuple[Path, dict[str, int]]) -> None:
    path, trials = damaged
    for column in ("params", "violations"):
        damage(path, "trial", column, {"a": [1], "b": "x", "c": None, "d": HUGE, "layer0.mixer": {"e": 1}})
    said = all_pages(trials)
    assert f"trial {trials['mixed']}, number" in said
    assert "every complete candidate" in said


PAYLOADS = {
    **ANY,
    **{f"no-{key}": without(PAYLOAD, key) for key in PAYLOAD},
    **{f"{key}-{kind}": {**PAYLOAD, key: value} for key in PAYLOAD for kind, value in ANY.items()},
    "curve-text": {**PAYLOAD, "curve": [{"step": 50, "loss": "text"}, {"loss": 3.0}, "x", {"step": 100, "loss": 1.0}]},
    "sweep-text": {**PAYLOAD, "sweep": [{"learning_rate": "x"}, {"learning_rate": 0.1, "validation": 3}, None]},
    "test-text": {**PAYLOAD, "test": {"accuracy": "good"}},
}


@pytest.mark.slow
def test_a_payload_of_any_shape_is_a_measurement_or_none(damaged: tuple[Path, dict[str, int]]) -> None:
    """Every shape is read; a page is drawn for one in 32, which takes long."""
    path, trials = damaged
    for index, (name, payload) in enumerate(PAYLOADS.items()):
        damage(path, "measurement", "payload", payload, f"trial_id = {trials['mixed']} and seed = 0")
        with ShownStore.open(f"sqlite:///{path}") as store:
            record = store.trial(trials["mixed"])
            whole = json.loads(json.dumps(payload)) == json.loads(json.dumps(PAYLOAD))
            told = bool(store.remarks())
        assert len(record.measurements) in (1, 2), name
        assert told or len(record.measurements) == 2, name
        assert not (whole and told), name
        if index % 32 == 0:
            seen("architecture", search="quick", trial=str(trials["mixed"]))
            seen("compare", search="quick", trials=f"{trials['mixed']},{trials['worse']}")


@pytest.mark.parametrize("name", ["no-validation", "curve-text", "sweep-text", "test-text", "no-recipe", "text"])
def test_a_damaged_measurement_is_named_and_the_others_are_shown(
    damaged: tuple[Path, dict[str, int]], name: str
) -> None:
    path, trials = damaged
    damage(path, "measurement", "payload", PAYLOADS[name], f"trial_id = {trials['mixed']} and seed = 0")
    app = seen("architecture", search="quick", trial=str(trials["mixed"]))
    (notice,) = app.expander
    assert "1 row left out or cut" in notice.label
    (named,) = [part.value.split(":")[0].rstrip("\\") for part in notice.markdown]
    assert named == f"trial {trials['mixed']}, mqar, seed 0" or named.startswith("measurement ")  # by pages or storage
    seeds = next(frame.value for frame in app.dataframe if "solved_at" in frame.value)
    assert 1 in seeds["seed"].tolist()


def test_what_fits_is_kept_and_what_does_not_is_named() -> None:
    found, refused = fitted(PayloadShape, PAYLOADS["curve-text"])
    assert found is not None
    assert [entry.model_dump() for entry in found.curve] == [{"step": 50}, {"step": 100, "loss": 1.0}]
    assert set(refused) == {"curve.loss", "curve.step", "curve"}
    assert found.test == {"accuracy": 0.9}


def test_a_long_reason_is_cut_and_said(damaged: tuple[Path, dict[str, int]]) -> None:
    path, trials = damaged
    damage(path, "trial", "reason", "x" * 5_000_000, f"id = {trials['failed']}")
    damage(path, "search", "reason", "y" * 5_000_000)
    for slug in PAGES:
        app = seen(slug, search="quick", trial=str(trials["failed"]))
        assert len(texts(app)) < 50_000
    assert "not text of at most" in texts(app).replace("\\", "")
    table = seen("front", search="quick", below="All trials").dataframe[0].value
    assert table["remark"].str.len().max() <= 400


def test_a_good_database_has_no_remark(url: str) -> None:
    for slug in (*PAGES, "mixers"):
        assert not open_page(slug).expander


def test_a_report_of_a_damaged_search(damaged: tuple[Path, dict[str, int]]) -> None:
    path, trials = damaged
    damage(path, "measurement", "payload", {"task": 3}, f"trial_id = {trials['confirm-mixed']}")
    damage(path, "trial", "arch", {"layers": 3}, f"id = {trials['confirm-window']}")
    damage(path, "search", "spec", {"tasks": 4})
    with ShownStore.open(f"sqlite:///{path}") as store:
        answer = read_answer(store, "quick")
        written = report(answer, evidence_of(store, answer, registry()))
    assert "Front of quick" in written
    assert f"trial {trials['confirm-mixed']}" in written.lower()
