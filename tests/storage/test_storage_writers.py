"""Several writers at once, in threads and in processes, lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from storage_samples import OBJECTIVES, measurement

from archsearch.storage import NewTrial, Store

WRITERS, TRIALS = 4, 12


def _write(url: str, search_id: int, writer: int) -> None:
    with Store.open(url) as store:
        for number in range(TRIALS):
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


def _check(store: Store, search_id: int, writers: int) -> None:
    trials = store.trials(search_id, states=["complete"])
    assert [trial.number for trial in trials] == list(range(writers * TRIALS))
    assert {trial.digest for trial in trials} == {f"w{w}-{n}" for w in range(writers) for n in range(TRIALS)}
    assert len(store.metrics_frame("shared")) == 2 * writers * TRIALS


def test_processes(url: str, store: Store) -> None:
    search_id = store.create_search("shared", {}, OBJECTIVES)
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        pool.starmap(_write, [(url, search_id, writer) for writer in range(WRITERS)])
    _check(store, search_id, WRITERS)


def test_threads_of_one_store(store: Store) -> None:
    search_id = store.create_search("shared", {}, OBJECTIVES)

    def write(writer: int) -> None:
        for number in range(TRIALS):
            _one_trial(store, search_id, f"w{writer}-{number}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    _check(store, search_id, 3)


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
