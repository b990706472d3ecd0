"""Trials: numbered, filled with measurements and metrics, found again, and never left running."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from storage_samples import OBJECTIVES, measurement, unexercised

from archsearch.errors import StorageError
from archsearch.exercise import Unexercised
from archsearch.storage import MetricValue, NewTrial, Store, TrialQuery
from archsearch.storage.engine import open_engine

AddTrial = Callable[..., int]


def test_trial_comes_back_as_it_went_in(store: Store, search_id: int, add_trial: AddTrial) -> None:
    trial_id = add_trial(
        state="infeasible",
        reason="over budget",
        costs={"state_bytes@32768": 2.0**60, "params": 12.0},
        violations={"state_bytes@32768": 0.5},
        unexercised=[unexercised("sliding(window=64)")],
    )
    record = store.trial(trial_id)
    assert (record.id, record.search_id, record.number) == (trial_id, search_id, 0)
    assert (record.kind, record.state, record.reason) == ("search", "infeasible", "over budget")
    assert (record.arch, record.digest, record.pattern) == ({"layers": ["full"]}, "d0", "full*2")
    assert (record.params, record.seeds) == ({"unit": "full"}, (0, 1))
    assert record.costs == {"state_bytes@32768": 2.0**60, "params": 12.0}
    assert record.violations == {"state_bytes@32768": 0.5}
    assert record.unexercised == (Unexercised(layer="sliding(window=64)", task="mqar", seq_len=48, dense_up_to=64),)
    assert (record.feasible, record.exercised) == (False, False)
    assert (record.parent, record.measurements, record.started_at) == (None, (), None)
    assert record.finished_at == record.created_at


def test_numbers_count_within_a_search(store: Store, search_id: int, add_trial: AddTrial) -> None:
    other = store.create_search("other", {}, OBJECTIVES)
    first, second = add_trial(), add_trial(digest="d1")
    store.add_trial(
        other,
        NewTrial(
            kind="search", state="queued", arch={}, digest="d", pattern="", params={}, seeds=[], costs={}, violations={}
        ),
    )
    assert [trial.number for trial in store.trials(search_id)] == [0, 1]
    assert [trial.id for trial in store.trials(search_id)] == [first, second]
    assert [trial.number for trial in store.trials(other)] == [0]
    assert [trial.costs for trial in store.trials(other)] == [{}]


@pytest.mark.parametrize(
    ("choice", "digests"),
    [
        ({}, ["a", "b", "c"]),
        ({"states": ["complete", "failed"]}, ["a", "b"]),
        ({"states": []}, []),
        ({"kinds": ["reference"]}, ["b", "c"]),
        ({"states": ["complete"], "kinds": {"search"}}, ["a"]),
    ],
)
def test_choosing_trials(
    store: Store, search_id: int, add_trial: AddTrial, choice: dict[str, Any], digests: list[str]
) -> None:
    add_trial(digest="a", state="complete")
    add_trial(digest="b", state="failed", kind="reference")
    add_trial(digest="c", state="queued", kind="reference")
    assert [trial.digest for trial in store.trials(search_id, **choice)] == digests


def test_life_of_a_trial(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial(state="queued")
    assert (store.trial(trial_id).started_at, store.trial(trial_id).finished_at) == (None, None)
    store.set_trial_state(trial_id, "running")
    running = store.trial(trial_id)
    assert running.started_at is not None
    assert running.finished_at is None
    store.set_trial_state(trial_id, "diverged", "the loss is not finite at step 3")
    ended = store.trial(trial_id)
    assert (ended.state, ended.reason) == ("diverged", "the loss is not finite at step 3")
    assert ended.started_at == running.started_at
    assert ended.finished_at is not None
    store.set_trial_state(trial_id, "queued")
    assert store.trial(trial_id).finished_at is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "compleet"}, r'"compleet" is no trial state \(did you mean "complete"'),
        ({"kind": "confirmed"}, r'"confirmed" is no trial kind \(did you mean "confirm"'),
        ({"parent": 99}, "(?i)foreign key"),
    ],
    ids=["state", "kind", "parent"],
)
def test_trial_that_cannot_be(
    store: Store, search_id: int, add_trial: AddTrial, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(StorageError, match=told):
        add_trial(**changes)
    assert store.trials(search_id) == []


def test_trial_that_does_not_exist(store: Store) -> None:
    for write in (
        lambda: store.trial(99),
        lambda: store.set_trial_state(99, "complete"),
        lambda: store.add_measurement(99, measurement(), {}),
        lambda: store.add_metrics(99, []),
    ):
        with pytest.raises(StorageError, match="no trial 99: `archsearch trials NAME` lists them"):
            write()


@pytest.mark.parametrize("trial_id", [2**31, 10**20])
def test_trial_beyond_every_id(store: Store, trial_id: int) -> None:
    with pytest.raises(StorageError, match=f"no trial {trial_id}"):
        store.trial(trial_id)
    with pytest.raises(StorageError, match=f'no search "{trial_id}"'):
        store.search(trial_id)
    with pytest.raises(StorageError, match="no search with the id"):
        store.heartbeat(trial_id)


@pytest.mark.parametrize(
    ("said", "stored"),
    [("größer als 层", "größer als 层"), ("a\0b", "a\ufffdb"), ("caf\udce9", "caf\ufffd"), ("🙂" * 5000, "🙂" * 5000)],
    ids=["unicode", "zero-byte", "surrogate", "long"],
)
def test_whatever_a_worker_says_is_stored(store: Store, add_trial: AddTrial, said: str, stored: str) -> None:
    trial_id = add_trial(pattern=said, params={"said": said})
    store.set_trial_state(trial_id, "failed", said)
    record = store.trial(trial_id)
    assert (record.pattern, record.reason, record.params) == (stored, stored, {"said": said})
    assert store.trial_page("first", TrialQuery(text=said[:40])).total == 1


def test_measurement_and_its_metrics(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial()
    curve = ({"step": 1, "accuracy": 0.1}, {"step": 2, "accuracy": 0.3})
    store.add_measurement(
        trial_id,
        measurement(seed=1, curve=curve),
        {"validation": {"mqar.accuracy": 0.5}, "test": {"mqar.accuracy": 0.25}},
        task="mqar",
    )
    (stored,) = store.trial(trial_id).measurements
    assert (stored.key, stored.task, stored.seed, stored.status) == ("k0", "mqar", 1, "complete")
    assert stored.payload == json.loads(json.dumps(measurement(seed=1, curve=curve)))
    assert stored.reused_from is None
    frame = store.metrics_frame("first").query("split != 'cost'")
    assert frame.drop(columns="trial").to_numpy(na_value=None).tolist() == [
        ["mqar.accuracy", "validation", "mqar", 1, None, 0.5],
        ["mqar.accuracy", "test", "mqar", 1, None, 0.25],
        ["mqar.accuracy", "progress", "mqar", 1, 1, 0.1],
        ["mqar.accuracy", "progress", "mqar", 1, 2, 0.3],
    ]


def test_measuring_again_replaces(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial()
    for key, value in (("old", 0.1), ("new", 0.2)):
        for seed in (0, 1):
            store.add_measurement(
                trial_id, measurement(key=key, seed=seed), {"test": {"mqar.accuracy": value + seed}}, task="mqar"
            )
    assert [(row.key, row.seed) for row in store.trial(trial_id).measurements] == [("new", 0), ("new", 1)]
    assert store.metrics_frame("first", "test")["value"].tolist() == [0.2, 1.2]
    assert store.trial(trial_id).costs == {"state_bytes@32768": 4096.0}


def test_numbers_that_are_not_finite_become_null(url: str, store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial(costs={"state_bytes@32768": math.inf})
    odd = measurement(
        status="diverged",
        reason="the loss is not finite at step 7",
        test={"accuracy": math.nan, "loss": -math.inf},
        curve=[{"step": 7, "loss": math.inf}],
    )
    store.add_measurement(trial_id, odd, {"test": {"mqar.accuracy": math.nan, "mqar.loss": None}}, task="mqar")
    (stored,) = store.trial(trial_id).measurements
    assert (stored.status, stored.payload["reason"]) == ("diverged", "the loss is not finite at step 7")
    assert stored.payload["test"] == {"accuracy": None, "loss": None}
    assert math.isnan(store.trial(trial_id).costs["state_bytes@32768"])
    frame = store.metrics_frame("first")
    assert frame["value"].isna().tolist() == [True] * 4
    engine = open_engine(url, read_only=True)
    with engine.connect() as connection:
        texts = list(connection.execute(text("SELECT CAST(payload AS TEXT) FROM measurement")).scalars())
    engine.dispose()
    assert texts
    for found in texts:
        json.loads(found, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_found_measurement_is_the_first_complete_or_diverged_one(store: Store, add_trial: AddTrial) -> None:
    assert store.find_measurement("k0") is None
    first, second, third = add_trial(digest="a"), add_trial(digest="a"), add_trial(digest="b")
    store.add_measurement(first, measurement(), {}, task="mqar")
    store.add_measurement(second, measurement(), {}, task="mqar", reused_from=first)
    store.add_measurement(third, measurement(key="k1", status="diverged"), {}, task="mqar")
    found = store.find_measurement("k0")
    assert found is not None
    assert found[0] == first
    assert found[1]["test"] == {"accuracy": 0.25}
    found = store.find_measurement("k1")
    assert found is not None
    assert (found[0], found[1]["status"]) == (third, "diverged")
    assert store.trial(second).measurements[0].reused_from == first


def test_a_measurement_of_a_superseded_trial_is_not_found(store: Store, add_trial: AddTrial) -> None:
    first, second = add_trial(digest="a", state="complete"), add_trial(digest="a", state="complete")
    for trial in (first, second):
        store.add_measurement(trial, measurement(), {}, task="mqar")
    store.set_trial_state(first, "superseded", "the source of mixer:linear changed")
    superseded = store.trial(first)
    assert (superseded.state, superseded.reason) == ("superseded", "the source of mixer:linear changed")
    assert superseded.finished_at is not None
    found = store.find_measurement("k0")
    assert found is not None
    assert found[0] == second
    store.set_trial_state(second, "superseded")
    assert store.find_measurement("k0") is None
    assert store.searches_frame()["superseded"].tolist() == [2]


def test_what_was_reused_from_a_superseded_trial_is_not_found(store: Store, add_trial: AddTrial) -> None:
    first, second = add_trial(digest="a", state="superseded"), add_trial(digest="a", state="complete")
    store.add_measurement(second, measurement(), {}, task="mqar", reused_from=first)
    assert store.find_measurement("k0") is None


def test_reused_measurement_names_the_trial_that_was_trained(store: Store, add_trial: AddTrial) -> None:
    first, second = add_trial(), add_trial()
    store.add_measurement(second, measurement(), {}, reused_from=first)
    found = store.find_measurement("k0")
    assert found is not None
    assert found[0] == first


def test_a_layer_that_a_trial_tells_of_is_told_once(store: Store, add_trial: AddTrial) -> None:
    told = [unexercised("sliding")]
    trial_id = add_trial(unexercised=told)
    for seed in (0, 1):
        store.add_measurement(trial_id, measurement(seed=seed, unexercised=tuple(told)), {}, task="mqar")
    record = store.trial(trial_id)
    assert [entry.to_json() for entry in record.unexercised] == told
    assert [part.payload["unexercised"] for part in record.measurements] == [told, told]


def test_composite_metrics(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial()
    store.add_metrics(trial_id, [MetricValue(name="recall", split="test", seed=seed, value=0.5) for seed in (0, 1)])
    store.add_metrics(trial_id, [MetricValue(name="recall", split="test", seed=1, value=0.75)])
    frame = store.metrics_frame("first", "test")
    assert frame[["name", "seed", "value"]].values.tolist() == [["recall", 0, 0.5], ["recall", 1, 0.75]]
    assert frame["task"].isna().all()


def test_split_that_does_not_exist(store: Store, add_trial: AddTrial) -> None:
    trial_id = add_trial()
    with pytest.raises(StorageError, match=r'"tests" is no split \(did you mean "test"\?\)'):
        store.add_measurement(trial_id, measurement(), {"tests": {"a": 1.0}})
    with pytest.raises(StorageError, match='"tests" is no split'):
        store.metrics_frame("first", "tests")
    assert store.trial(trial_id).measurements == ()


def test_orphans_are_preempted(store: Store, search_id: int, add_trial: AddTrial) -> None:
    add_trial(digest="a", state="complete")
    queued, running = add_trial(digest="b", state="queued"), add_trial(digest="c", state="running")
    other = store.create_search("other", {}, [])
    orphans = store.mark_orphans(search_id)
    assert [(trial.id, trial.state) for trial in orphans] == [(queued, "preempted"), (running, "preempted")]
    assert all("the driver stopped" in trial.reason for trial in orphans)
    assert [trial.state for trial in store.trials(search_id)] == ["complete", "preempted", "preempted"]
    assert orphans == store.trials(search_id, states=["preempted"])
    assert store.mark_orphans(search_id) == store.mark_orphans(other) == []
