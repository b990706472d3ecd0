"""Frames: columns, types and content, also of a store that holds nothing yet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from heartbeats import move
from storage_samples import measurement, unexercised

from archsearch.errors import StorageError
from archsearch.storage import Store
from archsearch.storage.frames import METRIC_COLUMNS, SEARCH_COLUMNS, TRIAL_COLUMNS

AddTrial = Callable[..., int]


def test_empty_frames_have_their_columns_and_types(store: Store) -> None:
    assert list(store.searches_frame().columns) == list(SEARCH_COLUMNS)
    store.create_search("empty", {}, [])
    trials, metrics = store.trials_frame("empty"), store.metrics_frame("empty")
    assert list(trials.columns) == list(TRIAL_COLUMNS)
    assert list(metrics.columns) == list(METRIC_COLUMNS)
    assert len(trials) == len(metrics) == 0
    assert metrics["value"].dtype == "float64"
    assert metrics["seed"].dtype == metrics["step"].dtype == trials["parent"].dtype == "Int64"


def test_searches_frame_counts_states(store: Store, search_id: int, add_trial: AddTrial) -> None:
    for digest, state in (("a", "complete"), ("b", "complete"), ("c", "infeasible")):
        add_trial(digest=digest, state=state)
    store.create_search("second", {}, [])
    frame = store.searches_frame().set_index("name")
    assert list(frame.index) == ["first", "second"]
    assert frame.loc["first", ["trials", "complete", "infeasible", "running"]].tolist() == [3, 2, 1, 0]
    assert frame.loc["second", "trials"] == 0
    assert frame.loc["first", "objectives"] == ["recall", "state_bytes"]
    assert pd.isna(frame.loc["first", "finished_at"])
    assert abs(frame.loc["first", "created_at"] - datetime.now(UTC)) < timedelta(seconds=10)


def test_stale_search_is_interrupted_in_the_frame(store: Store, search_id: int) -> None:
    assert store.searches_frame()["state"].tolist() == ["running"]
    move(store, search_id, timedelta(hours=-1))
    assert store.searches_frame()["state"].tolist() == ["interrupted"]


def test_trials_frame(store: Store, add_trial: AddTrial) -> None:
    first = add_trial(state="infeasible", violations={"state_bytes@32768": 0.5}, unexercised=[unexercised("moba")])
    second = add_trial(kind="confirm", seeds=[7], parent=first)
    frame = store.trials_frame("first")
    assert frame["trial"].tolist() == [first, second]
    assert frame["number"].tolist() == [0, 1]
    assert frame["kind"].tolist() == ["search", "confirm"]
    assert frame["seeds"].tolist() == [[0, 1], [7]]
    assert frame["feasible"].tolist() == [False, True]
    assert frame["exercised"].tolist() == [False, True]
    assert frame["unexercised"].tolist() == [[unexercised("moba")], []]
    assert frame["violations"].tolist() == [{"state_bytes@32768": 0.5}, {}]
    assert frame["parent"].isna().tolist() == [True, False]
    assert frame["parent"][1] == first
    assert str(frame["created_at"].dt.tz) == "UTC"


def test_metrics_frame_of_a_split(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial()
    metrics = {"validation": {"mqar.accuracy": 0.5}, "test": {"mqar.accuracy": 0.25, "mqar.loss": 2.0}}
    store.add_measurement(trial_id, measurement(), metrics, task="mqar")
    frame = store.metrics_frame("first", "test")
    assert frame["name"].tolist() == ["mqar.accuracy", "mqar.loss"]
    assert frame["value"].tolist() == [0.25, 2.0]
    assert set(frame["split"]) == {"test"}
    assert len(store.metrics_frame("first")) == 4
    assert store.metrics_frame("first", "cost")["task"].isna().all()
    assert set(store.metrics_frame("first", ("test", "cost"))["split"]) == {"test", "cost"}


def test_frames_of_an_unknown_search(store: Store, search_id: int) -> None:
    for read in (store.trials_frame, store.metrics_frame):
        with pytest.raises(StorageError, match='did you mean "first"'):
            read("frist")
