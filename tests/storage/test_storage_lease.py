"""Leases: the driver that was last given a search writes of it, and no other one changes anything."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from database_kinds import on_postgres, on_sqlite
from heartbeats import move
from storage_samples import OBJECTIVES, measurement, unexercised

from archsearch.errors import StorageError, TakenOverError
from archsearch.storage import Driver, Lease, MetricValue, NewProposal, NewTrial, SearchRecord, Store, clock
from archsearch.storage.tables import Search

ELSEWHERE = Driver(host="far", boot_id="another", pid_namespace="pid:[1]", pid=77, started=5)
ANOTHER = replace(ELSEWHERE, host="farther", pid=78)
RECALL = MetricValue(name="recall", split="test", value=0.5, seed=0)


def new_trial(**changes: Any) -> NewTrial:
    values: dict[str, Any] = {
        "kind": "search",
        "state": "queued",
        "arch": {"layers": ["full"], "d_model": 8},
        "digest": "d0",
        "pattern": "full*2",
        "params": {"unit": "full", "rate": float("inf")},
        "seeds": [0, 2**40],
        "costs": {"state_bytes@32768": 4096.5, "decode_flops@32768": float("inf")},
        "violations": {"state_bytes@32768": 0.5},
        "unexercised": [unexercised("moba")],
    }
    return NewTrial(**{**values, **changes})


def claim(store: Store, search_id: int) -> SearchRecord:
    """Another driver takes a search over that nobody has heard of for an hour."""
    move(store, search_id, timedelta(hours=-1))
    now = count()
    return store.claim_search(search_id, driver=ANOTHER, sleep=lambda _: None, clock=lambda: float(next(now)))


@pytest.fixture
def search_id(store: Store) -> int:
    return store.create_search("first", {"seed": 0}, OBJECTIVES, parts=[("core", "1", "aa")], driver=ELSEWHERE)


@pytest.fixture
def lease(store: Store, search_id: int) -> Lease:
    """The lease of the driver that made the search."""
    return Lease(store, search_id)


@pytest.fixture
def trial(lease: Lease) -> int:
    """A trial that runs, of a search to which somebody has added a candidate."""
    lease.propose(lease.search_id, [NewProposal(digest="d9", arch={"layers": []}, pattern="full")])
    return lease.add_trial(lease.search_id, new_trial(state="running"))


Write = Callable[[Lease, int], object]
WRITES: dict[str, Write] = {
    "add_trial": lambda lease, trial: lease.add_trial(lease.search_id, new_trial()),
    "set_trial_state": lambda lease, trial: lease.set_trial_state(trial, "complete"),
    "metrics at the end": lambda lease, trial: lease.set_trial_state(trial, "complete", metrics=[RECALL]),
    "add_measurement": lambda lease, trial: lease.add_measurement(trial, measurement(), {}),
    "add_metrics": lambda lease, trial: lease.add_metrics(trial, [RECALL]),
    "set_placement": lambda lease, trial: lease.set_placement(trial, {"node": "far", "device": "cuda"}),
    "lose_worker": lambda lease, trial: lease.lose_worker(trial, "its machine is gone"),
    "link_proposal": lambda lease, trial: lease.link_proposal(lease.proposals(lease.search_id)[0].id, trial),
    "add_parts": lambda lease, trial: lease.add_parts(lease.search_id, [("task:mqar", "1", "bb")]),
    "mark_orphans": lambda lease, trial: lease.mark_orphans(lease.search_id),
    "set_parts": lambda lease, trial: lease.set_parts(lease.search_id, []),
    "set_spec": lambda lease, trial: lease.set_spec(lease.search_id, {}),
    "heartbeat": lambda lease, trial: lease.heartbeat(lease.search_id),
    "set_search_state": lambda lease, trial: lease.set_search_state(lease.search_id, "cancelled"),
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


def all_of(store: Store, search_id: int, trial: int) -> list[Any]:
    """What a driver may write."""
    found = [repr(frame.to_dict("list")) for frame in (store.trials_frame("first"), store.metrics_frame("first"))]
    about = (store.parts(search_id), store.proposals(search_id), store.trial(trial))
    return [*found, store.search(search_id), *about]


@each_write
def test_a_driver_whose_search_was_taken_over_writes_nothing(
    url: str, store: Store, lease: Lease, trial: int, write: Write
) -> None:
    with Store.open(url) as other:
        assert claim(other, lease.search_id).fence == lease.fence + 1
    before = all_of(store, lease.search_id, trial)
    with pytest.raises(TakenOverError) as caught:
        write(lease, trial)
    assert str(caught.value).startswith('the search "first" was taken over by another driver (process 78 on farther)')
    assert all_of(store, lease.search_id, trial) == before


@each_write
def test_the_driver_that_took_over_writes(store: Store, lease: Lease, trial: int, write: Write) -> None:
    fence = claim(store, lease.search_id).fence
    before = all_of(store, lease.search_id, trial)
    write(Lease(store, lease.search_id, fence), trial)
    assert all_of(store, lease.search_id, trial) != before


@each_write
def test_a_claim_in_the_middle_of_a_write_refuses_it(
    url: str, store: Store, lease: Lease, trial: int, write: Write
) -> None:
    with Store.open(url) as other, ThreadPoolExecutor(1) as pool:
        with other._writing() as session:
            session.get_one(Search, lease.search_id).fence += 1
            session.flush()
            writing = pool.submit(write, lease, trial)
        with pytest.raises(TakenOverError):
            writing.result(timeout=240)


def test_a_claim_waits_for_a_write_that_has_begun(url: str, store: Store, lease: Lease, trial: int) -> None:
    move(store, lease.search_id, timedelta(hours=-1))
    with Store.open(url) as other, ThreadPoolExecutor(1) as pool:
        with lease._writing() as session:
            claiming = pool.submit(other.set_search_state, lease.search_id, "cancelled")
            lease._search_row(session, lease.search_id, lock=True).note = "written"
            session.flush()
            assert not claiming.done()
        claiming.result(timeout=240)
    assert (store.search("first").note, store.search("first").state) == ("written", "cancelled")


def test_each_claim_counts_on(store: Store, search_id: int) -> None:
    assert store.search(search_id).fence == 1
    assert [claim(store, search_id).fence for _ in range(3)] == [2, 3, 4]


def test_what_a_lease_writes_is_what_a_store_writes(store: Store, lease: Lease) -> None:
    """On a server it goes another way."""
    other = store.create_search("second", {"seed": 0}, OBJECTIVES)
    for writer, search in ((lease, lease.search_id), (store, other)):
        trial = writer.add_trial(search, new_trial(reason="ab\0c"))
        again = writer.add_trial(search, new_trial(state="infeasible", parent=trial, costs={}))
        writer.set_trial_state(trial, "running", "say \0 it")
        told = measurement(curve=[{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": float("nan")}])
        scores = {"validation": {"mqar.accuracy": 0.5}, "test": {"mqar.accuracy": float("nan")}}
        assert writer.add_measurement(trial, told, scores, task="mqar")
        assert writer.add_measurement(trial, measurement(key="k1", seed=2**40), scores, reused_from=again)
        writer.add_metrics(trial, [RECALL])
        writer.set_trial_state(
            trial, "complete", "done", metrics=[replace(RECALL, value=0.75), replace(RECALL, seed=1)]
        )
    first, second = ([store.trial(found.id) for found in store.trials(search)] for search in (lease.search_id, other))
    for mine, theirs in zip(first, second, strict=True):
        assert [moment is None for moment in _moments(mine)] == [moment is None for moment in _moments(theirs)]
        assert _timeless(mine) == _timeless(theirs)
    columns = ["name", "split", "task", "seed", "step", "value"]
    frames = [store.metrics_frame(name)[columns].sort_values(columns).to_json() for name in ("first", "second")]
    assert frames[0] == frames[1]
    assert len(store.metrics_frame("first")) == 10


def _moments(trial: Any) -> tuple[datetime | None, ...]:
    return (trial.created_at, trial.started_at, trial.finished_at)


def _timeless(trial: Any) -> Any:
    measured = tuple(replace(one, created_at=clock_start, reused_from=None) for one in trial.measurements)
    ids = {"id": 0, "search_id": 0, "parent": trial.parent and 0, "measurements": measured}
    costs = {name: str(value) for name, value in trial.costs.items()}
    return replace(trial, **ids, costs=costs, created_at=clock_start, started_at=None, finished_at=None)


clock_start = datetime.min


def test_a_measurement_of_the_same_task_and_seed_is_replaced(store: Store, lease: Lease, trial: int) -> None:
    for value in (0.25, 0.5):
        lease.add_measurement(trial, measurement(key=f"k{value}"), {"test": {"mqar.accuracy": value}}, task="mqar")
    assert [measured.key for measured in store.trial(trial).measurements] == ["k0.5"]
    assert store.metrics_frame("first", "test")["value"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda lease, trial: lease.set_trial_state(99, "complete"), "no trial 99"),
        (lambda lease, trial: lease.set_trial_state(2**40, "complete"), f"no trial {2**40}"),
        (lambda lease, trial: lease.add_measurement(99, measurement(), {}), "no trial 99"),
        (lambda lease, trial: lease.set_trial_state(trial, "completed"), '"completed" is no trial state'),
        (lambda lease, trial: lease.add_trial(lease.search_id, new_trial(kind="odd")), '"odd" is no trial kind'),
        (lambda lease, trial: lease.add_trial(lease.search_id, new_trial(arch={"a": object()})), "cannot be stored"),
        (lambda lease, trial: lease.add_trial(lease.search_id, new_trial(costs={"a": "b"})), "cannot be stored"),
        (lambda lease, trial: lease.add_measurement(trial, measurement(seed="x"), {}), "cannot be stored"),
        (lambda lease, trial: lease.add_measurement(trial, {"seed": 0}, {}), "cannot be stored"),
    ],
)
def test_what_cannot_be_written_is_told_as_by_a_store(
    store: Store, lease: Lease, trial: int, write: Write, told: str
) -> None:
    before = all_of(store, lease.search_id, trial)
    with pytest.raises(StorageError, match=told):
        write(lease, trial)
    assert all_of(store, lease.search_id, trial) == before


def test_a_driver_writes_of_its_own_search_alone(store: Store, lease: Lease) -> None:
    other = store.create_search("second", {}, OBJECTIVES)
    theirs = store.add_trial(other, new_trial())
    for write in (
        lambda: lease.add_trial(other, new_trial()),
        lambda: lease.heartbeat(other),
        lambda: lease.set_search_state(other, "cancelled"),
        lambda: lease.set_trial_state(theirs, "complete"),
        lambda: lease.add_measurement(theirs, measurement(), {}),
    ):
        with pytest.raises(StorageError, match="and its driver writes of no other"):
            write()
    assert [record.state for record in store.trials(other)] == ["queued"]
    assert lease.trial(theirs).state == "queued"


def test_a_search_that_was_removed_is_told(store: Store, lease: Lease) -> None:
    store.set_parts(lease.search_id, [])
    with store._writing() as session:
        session.delete(session.get_one(Search, lease.search_id))
    with pytest.raises(StorageError, match=f"no search with the id {lease.search_id}"):
        lease.heartbeat(lease.search_id)


# -- clocks ----------------------------------------------------------------------------------------------------


@on_postgres
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_drivers_clock_is_never_asked(
    url: str, store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The server's is: a driver that lives seems alive, and one that is silent does not, whatever it takes for now."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(clock, "datetime", Wrong)
    lease.heartbeat(lease.search_id)
    assert store.search("first").age < 240
    assert (store.search("first").silent, store.search("first").state_now()) == (False, "running")
    with pytest.raises(StorageError, match="was alive 0 s ago"):
        store.claim_search(lease.search_id, driver=ANOTHER)
    assert claim(store, lease.search_id).fence == 2


@on_sqlite
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_of_the_host_that_is_set_changes_nothing(
    url: str, store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Whoever beats is left alone, and whoever does not is replaced; the page says so too after the next beat."""

    class Set(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=hours)

    lease.heartbeat(lease.search_id)
    monkeypatch.setattr(clock, "datetime", Set)
    assert store.search("first").state_now() == "interrupted"
    ticks = count()

    def beat_at_12(seconds: float) -> None:
        if next(ticks) == 24:
            lease.heartbeat(lease.search_id)

    now = count()
    with pytest.raises(StorageError, match="gave a sign while it was watched"):
        store.claim_search(lease.search_id, driver=ANOTHER, sleep=beat_at_12, clock=lambda: next(now) / 4)
    assert store.search("first").state_now() == "running"
    monkeypatch.undo()
    later = count()
    claimed = store.claim_search(
        lease.search_id, driver=ANOTHER, sleep=lambda _: None, clock=lambda: float(next(later))
    )
    assert (claimed.fence, claimed.driver) == (2, ANOTHER)


@on_postgres
def test_who_stops_in_a_transaction_keeps_nobody_out(
    url: str, store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is paused there would hold its locks for ever."""
    monkeypatch.setattr("archsearch.storage.engine.BUSY_SECONDS", 0.5)
    with Store.open(url) as paused, Store.open(url) as other, ExitStack() as left:
        session = left.enter_context(paused._writing())
        paused._search_row(session, lease.search_id, lock=True)
        with pytest.raises(StorageError, match="another process has kept it locked"):
            other.heartbeat(lease.search_id)
        _until(lambda: other.heartbeat(lease.search_id))
        with pytest.raises(StorageError, match="idle-in-transaction"):
            left.close()


def _until(act: Callable[[], object]) -> None:
    for _ in range(200):
        try:
            act()
        except StorageError:
            continue
        return
    raise AssertionError("it was locked out")
