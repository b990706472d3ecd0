"""Damaged rows: whatever stands in one column of one row, every reader answers for the others and says what it met."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from grids import grid
from sqlalchemy import JSON, String
from storage_samples import OBJECTIVES, measurement

from archsearch.errors import StorageError
from archsearch.storage import Driver, MetricValue, NewTrial, SearchRecord, Store, TrialQuery, TrialRecord, remarks
from archsearch.storage.columns import EPOCH
from archsearch.storage.kinds import LONGEST
from archsearch.storage.tables import Base

GOOD, BAD = 1, 2
COST = "state_bytes@32768"
COLUMNS = [column for table in Base.metadata.sorted_tables for column in table.columns if not column.primary_key]
VALUES: dict[str, Any] = {
    "null": None,
    "text": "abc",
    "bytes": b"\xff\xfe",
    "infinite": math.inf,
    "fraction": -1.5,
    "huge": 2**62,
    "json-list": '[1, {"a": "b"}, [null]]',
    "json-object": '{"name": [1], "a": {"b": "c"}}',
    "json-infinite": '{"a": 1e999, "step": "x"}',
    "json-deep": "[" * 3000 + "]" * 3000,
    "json-long-number": f'{{"validation": {{"a": 1{"0" * 400}}}, "a": 1{"0" * 400}}}',
    "json-long-numbers": f"[1{'0' * 400}]",
}


def cases() -> list[Any]:
    """Every value in every column; three in those of JSON are quick, and one in the others, to which all are texts."""
    found = []
    for column in COLUMNS:
        of_text = isinstance(column.type, String)
        quick = ("json-long-numbers",) if of_text else ("text",)
        if isinstance(column.type, JSON):
            quick = ("text", "json-object", "json-long-numbers")
        for value in grid(VALUES, quick):
            (told,) = value.values
            found.append(
                pytest.param(
                    column.table.name,
                    column.name,
                    told,
                    id=f"{column.table.name}.{column.name}-{value.id}",
                    marks=value.marks,
                )
            )
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which row 1 of each table stays good, and whose columns may all be NULL."""
    path = tmp_path_factory.mktemp("damage") / "searches.db"
    with Store.open(f"sqlite:///{path}") as store:
        for name in ("good", "other"):
            store.create_search(
                name,
                {"seed": 0},
                OBJECTIVES,
                plugins=[("a", "d", "1"), ("b", "d", "1")],
                parts=[("a", "1", "x"), ("b", "1", "y")],
                driver=Driver.here(),
            )
            store.set_search_state(1 if name == "good" else 2, "complete", "done")
        for index, digest in enumerate(("d1", "d2")):
            trial = store.add_trial(
                GOOD,
                NewTrial(
                    kind="search",
                    state="queued",
                    arch={"layers": ["full"]},
                    digest=digest,
                    pattern=digest,
                    params={"a": 1},
                    seeds=[0],
                    costs={COST: 10.0 + index},
                    violations={},
                ),
            )
            told = measurement(key=f"k{index}", curve=({"step": 1, "loss": 0.5},))
            store.add_measurement(trial, told, {"test": {"mqar.accuracy": 0.5}}, task="mqar")
            store.add_metrics(trial, [MetricValue(name="recall", split="test", seed=0, value=0.25)])
            store.set_trial_state(trial, "complete", "trained")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema=ON")
        database.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def url(template: Path, tmp_path: Path) -> str:
    shutil.copy(template, tmp_path / "searches.db")
    return f"sqlite:///{tmp_path}/searches.db"


def damage(url: str, table: str, column: str, value: Any) -> None:
    """Writes a value where `BAD` is: the last row of a table that is not of the first trial or search."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        last = {"metric": f"trial_id = {BAD}", "measurement": f"trial_id = {BAD}"}.get(table, f"id = {BAD}")
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {last}", (value,))
        database.commit()


def by_trial(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the good trial as plain values."""
    rows = frame[frame["trial"] == GOOD].to_dict("records")
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def plain(value: Any) -> Any:
    """A cell, None for one that holds nothing."""
    return value if isinstance(value, list | dict) or pd.notna(value) else None


def answers(store: Store) -> dict[str, Any]:
    """What every reader says of the good rows."""
    page = TrialQuery(order="recall")
    searches = store.searches_frame()
    first = searches[searches["id"] == GOOD]
    sample = store.sample("good", 5)
    return {
        "search": store.search("good"),
        "by id": store.search(GOOD),
        "searches": [record for record in store.searches() if record.id == GOOD],
        "trials": [record for record in store.trials(GOOD) if record.id == GOOD],
        "trial": store.trial(GOOD),
        "plugins": [row for row in store.plugins(GOOD) if row[0] == "a"],
        "parts": store.parts(GOOD).get("a"),
        "last parts": set(store.last_parts()) >= {"a"},
        "found": store.find_measurement("k0"),
        "searches frame": [first[name].tolist() for name in ("name", "state", "objectives", "heartbeat_at")],
        "trials frame": by_trial(store.trials_frame("good")),
        "metrics": by_trial(store.metrics_frame("good")),
        "candidates": by_trial(store.candidates_frame("good")),
        "values": by_trial(store.values_frame("good", ["recall", COST], ("test", "cost"))),
        "page": by_trial(store.trial_page("good", page, metrics=["recall", COST], split="test").rows),
        "sample": (by_trial(sample.trials), by_trial(sample.metrics), sample.archs["d1"], sample.params["d1"]),
        "revision": isinstance(store.revision(GOOD), str),
    }


@pytest.fixture(scope="module")
def expected(template: Path) -> dict[str, Any]:
    with Store.open(f"sqlite:///{template}", read_only=True) as store:
        found = answers(store)
        assert store.remarks() == []
    assert all(found.values()), found
    return found


def said_of_the_bad_one(store: Store) -> list[SearchRecord | TrialRecord]:
    """The bad rows, as far as they can be read; nothing but a `StorageError` may say that they cannot."""
    found: list[SearchRecord | TrialRecord] = []
    reads: list[Callable[[], SearchRecord | TrialRecord]] = [
        lambda: store.search(BAD),
        lambda: store.search("other"),
        lambda: store.trial(BAD),
    ]
    for read in reads:
        with contextlib.suppress(StorageError):
            found.append(read())
    store.find_measurement("k1")
    store.revision(BAD)
    return found


def test_objectives_of_one_name_are_none(url: str) -> None:
    damage(url, "search", "objectives", json.dumps([OBJECTIVES[0], {**OBJECTIVES[1], "name": "recall"}]))
    with Store.open(url) as store:
        assert store.search("other").objectives == ()
        assert "with a name of its own" in store.remarks()[0]


@pytest.mark.parametrize(("table", "column", "value"), cases())
def test_one_bad_value_leaves_the_other_rows(
    url: str, expected: dict[str, Any], table: str, column: str, value: Any
) -> None:
    damage(url, table, column, value)
    with Store.open(url, read_only=True) as store:
        found = answers(store)
        for reader, told in expected.items():
            assert found[reader] == told, reader
        for record in said_of_the_bad_one(store):
            assert record.created_at.tzinfo is not None
            assert isinstance(record.reason, str)
        assert all(len(remark) < 500 for remark in store.remarks())
        assert len(store.remarks()) <= 12


@pytest.mark.parametrize(
    ("table", "column", "value", "remark"),
    [
        ("trial", "seeds", "abc", "trial 2: seeds is 'abc', not a list of whole numbers: the row is left out"),
        ("trial", "state", "lost", "trial 2: state is 'lost', not a known state of a trial: the row is left out"),
        ("trial", "created_at", "soon", "trial 2: created_at is 'soon', not a moment: read as 1970-01-01"),
        ("search", "beats", "x", "search 2: beats is 'x', not a whole number: read as 0"),
        ("search", "spec", "[1]", "search 2: spec is [1], not a JSON object: read as empty"),
        ("search", "driver", '{"pid": 1}', "search 2: driver is {'pid': 1}, not a driver: read as none"),
        ("metric", "value", math.inf, "metric of trial 2: value is inf, not a finite number: read as no number"),
        ("part", "digest", None, "part 2: digest is None, not text of at most 10,000 characters: the row is left out"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
)
def test_what_was_met_is_named_once(
    url: str, caplog: pytest.LogCaptureFixture, table: str, column: str, value: Any, remark: str
) -> None:
    damage(url, table, column, value)
    with caplog.at_level(logging.WARNING, "archsearch.storage"), Store.open(url, read_only=True) as store:
        for _ in range(2):
            answers(store)
            said_of_the_bad_one(store)
        assert remark in store.remarks()
        assert len(set(store.remarks())) == len(store.remarks())
        with Store.open(url, read_only=True) as again:
            answers(again)
    logged = [record.getMessage() for record in caplog.records if record.getMessage().endswith(remark)]
    assert logged == [f"{url}: {remark}"]


def test_a_long_text_is_cut_with_a_mark(url: str) -> None:
    damage(url, "trial", "reason", "x" * 5_000_000)
    with Store.open(url, read_only=True) as store:
        texts = [store.trial(BAD).reason, store.trials_frame("good")["reason"][1]]
        texts.append(store.trial_page("good", TrialQuery(descending=False)).rows["reason"][1])
    assert texts == ["x" * LONGEST + "... (4,990,000 more characters were cut)"] * 3


def test_without_one_objective_there_is_none(url: str) -> None:
    damage(url, "search", "objectives", '[{"name": "recall", "direction": "maximize"}, {"name": "state_bytes"}]')
    with Store.open(url, read_only=True) as store:
        assert store.search("other").objectives == ()
        assert len(store.search("good").objectives) == 2


def test_what_cannot_be_read_of_a_trial_never_speaks_for_it(url: str) -> None:
    damage(url, "trial", "violations", "abc")
    damage(url, "trial", "unexercised", '["sliding", {"layer": 1}]')
    with Store.open(url, read_only=True) as store:
        trial, candidates = store.trial(BAD), store.candidates_frame("good")
        assert (trial.feasible, trial.exercised) == (False, False)
        assert [entry.layer for entry in trial.unexercised] == ["'sliding'", "{'layer': 1}"]
        assert candidates["feasible"].tolist() == candidates["exercised"].tolist() == [True, False]


@pytest.mark.parametrize("value", ["abc", math.inf, b"9", None], ids=["text", "infinite", "bytes", "null"])
def test_a_value_that_is_no_number_is_in_no_mean(url: str, value: Any) -> None:
    damage(url, "metric", "value", value)
    query = TrialQuery(order="recall", descending=True)
    with Store.open(url, read_only=True) as store:
        rows = store.trial_page("good", query, metrics=["recall", COST], split="test").rows
        assert rows["trial"].tolist() == [GOOD, BAD]
        assert rows["recall"].isna().tolist() == rows[COST].isna().tolist() == [False, True]
        assert math.isnan(store.trial(BAD).costs[COST])


@pytest.mark.parametrize(
    "payload",
    [
        "abc",
        "[1]",
        "{}",
        '{"key": "another", "seed": 0, "status": "complete"}',
        '{"key": "k1", "seed": 0, "status": "complete", "task": "mqar", "test": {"a": "b"}, "validation": {}}',
        '{"key": "k1", "seed": 0, "status": "diverged", "task": "mqar", "test": {}, "validation": {}}',
    ],
    ids=["text", "list", "empty", "another", "text-metric", "status"],
)
def test_a_bad_payload_is_not_reused(url: str, payload: str) -> None:
    with Store.open(url) as store:
        assert store.find_measurement("k1") is not None
        damage(url, "measurement", "payload", payload)
        assert store.find_measurement("k1") is None
        third = store.add_trial(
            GOOD,
            NewTrial(
                kind="search",
                state="complete",
                arch={},
                digest="d3",
                pattern="",
                params={},
                seeds=[0],
                costs={},
                violations={},
            ),
        )
        store.add_measurement(third, measurement(key="k1"), {}, task="mqar")
        found = store.find_measurement("k1")
    assert found is not None
    assert found[0] == third


def test_a_search_that_cannot_be_read_says_why(url: str) -> None:
    damage(url, "search", "state", "paused")
    with Store.open(url, read_only=True) as store:
        with pytest.raises(StorageError) as caught:
            store.search("other")
        assert "search 2: state is 'paused', not a known state of a search" in str(caught.value)
        assert [record.name for record in store.searches()] == ["good"]


def test_a_damaged_search_can_be_claimed_and_driven(url: str) -> None:
    for column in ("beats", "heartbeat_at", "driver", "created_at"):
        damage(url, "search", column, "abc")
    damage(url, "search", "state", "running")
    now = iter(range(0, 10**6))
    with Store.open(url) as store:
        record = store.claim_search(BAD, driver=Driver.here(), sleep=lambda _: None, clock=lambda: float(next(now)))
        assert (record.state, record.driver, record.beats) == ("running", Driver.here(), 1)
        assert record.created_at == EPOCH
        store.heartbeat(BAD)
        assert store.search(BAD).beats == 2
        assert store.mark_orphans(BAD) == []


def test_a_database_that_is_damaged_throughout_fills_no_memory(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remarks, "MOST", 1)
    damage(url, "trial", "reason", None)
    damage(url, "trial", "params", None)
    with Store.open(url, read_only=True) as store:
        store.trials(GOOD)
        assert store.remarks()[1:] == ["1 more values could not be read"]
