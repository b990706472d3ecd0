"""Several writers at once, in threads and in processes, lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from storage_samples import OBJECTIVES, measurement

from archsearch.storage import Lease, NewTrial, Store

SIZES = [pytest.param(4, 12, id="4x12"), pytest.param(8, 200, id="8x200", marks=pytest.mark.slow)]


def _write(url: str, search_id: int, writer: int, trials: int) -> None:
    """A driver's trials into a search of its own, and as many into one that all share."""
    with Store.open(url) as store:
        lease = Lease(store, store.create_search(f"own-{writer}", {}, OBJECTIVES))
        for number in range(trials):
            _one_trial(lease, lease.search_id, f"own{writer}-{number}")
            _one_trial(store, search_id, f"w{writer}-{number}")


def _one_trial(store: Store, search_id: int, digest: str) -> None:
    trial_id = store.add_trial(
        search_id,
        NewTrial(
            kind="search",
            state="running",
            arch={},
            digest=digest,
            pattern="full",
            params={},
            seeds=[0],
            costs={"state_bytes@32768": 1.0},
            violations={},
        ),
    )
    store.add_measurement(trial_id, measurement(key=digest), {"test": {"mqar.accuracy": 0.5}}, task="mqar")
    store.heartbeat(search_id)
    store.set_trial_state(trial_id, "complete")


def _check(store: Store, search_id: int, writers: int, each: int) -> None:
    """Nothing of the shared search is lost or doubled, and of each writer all comes in its order."""
    trials = store.trials(search_id, states=["complete"])
    assert [trial.number for trial in trials] == list(range(writers * each))
    for writer in range(writers):
        mine = [trial.digest for trial in trials if trial.digest.startswith(f"w{writer}-")]
        assert mine == [f"w{writer}-{number}" for number in range(each)]
    metrics = store.metrics_frame("shared")
    assert sorted(metrics["trial"]) == sorted([trial.id for trial in trials] * 2)
    assert store.search("shared").beats == writers * each


def _check_own(store: Store, writer: int, each: int) -> None:
    record = store.search(f"own-{writer}")
    trials = store.trials(record.id, states=["complete"])
    assert [(trial.number, trial.digest) for trial in trials] == [(n, f"own{writer}-{n}") for n in range(each)]
    assert sorted(store.metrics_frame(record.name)["trial"]) == sorted([trial.id for trial in trials] * 2)
    keys = [store.trial(trial.id).measurements[0].key for trial in trials[:: max(1, each // 10)]]
    assert keys == [trial.digest for trial in trials[:: max(1, each // 10)]]
    assert record.beats == each


@pytest.mark.parametrize(("writers", "trials"), SIZES)
def test_processes(url: str, store: Store, writers: int, trials: int) -> None:
    search_id = store.create_search("shared", {}, OBJECTIVES)
    with multiprocessing.get_context("spawn").Pool(writers) as pool:
        pool.starmap(_write, [(url, search_id, writer, trials) for writer in range(writers)])
    _check(store, search_id, writers, trials)
    for writer in range(writers):
        _check_own(store, writer, trials)


def test_threads_of_one_store(store: Store) -> None:
    search_id = store.create_search("shared", {}, OBJECTIVES)

    def write(writer: int) -> None:
        for number in range(12):
            _one_trial(store, search_id, f"w{writer}-{number}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    _check(store, search_id, 3, 12)


def _write_and_die(url: str, search_id: int) -> None:
    store = Store.open(url)
    _one_trial(store, search_id, "done")
    with store._writing() as session:
        store._search_row(session, search_id).reason = "half-way"
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_writer_loses_only_its_open_transaction(
    url: str, store: Store, search_id: int, add_trial: Callable[..., int]
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(url, search_id))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert store.search("first").reason == ""
    assert [trial.digest for trial in store.trials(search_id)] == ["done"]
    add_trial(digest="after")
    assert len(store.trials(search_id)) == 2
