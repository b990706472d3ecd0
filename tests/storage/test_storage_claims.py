"""Claims: who may take a search over, and how long its driver is watched before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from heartbeats import move

from archsearch.errors import StorageError
from archsearch.storage import Driver, SearchRecord, Store

HERE = Driver.here()
DEAD = replace(HERE, started=HERE.started - 1)
ELSEWHERE = Driver(host="far", boot_id="another", pid_namespace="pid:[1]", pid=77, started=5)
HOUR = timedelta(hours=1)


class Time:
    """A clock that runs while somebody sleeps; at `moments` (seconds) something happens meanwhile."""

    def __init__(self, moments: dict[float, Callable[[], Any]] | None = None) -> None:
        self.now, self.naps, self.told = 1000.0, list[float](), list[str]()
        self._moments = {self.now + after: act for after, act in (moments or {}).items()}

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        for moment in [moment for moment in self._moments if moment <= self.now]:
            self._moments.pop(moment)()

    @property
    def waited(self) -> float:
        return sum(self.naps)

    def claim(self, store: Store, search_id: int, *, wait: bool = False, driver: Driver = HERE) -> SearchRecord:
        return store.claim_search(
            search_id, driver=driver, wait=wait, watch=self.told.append, sleep=self.sleep, clock=self.clock
        )


@pytest.fixture
def search(store: Store) -> Callable[..., int]:
    """A running search of a driver, with a heartbeat so long ago."""

    def make(driver: Driver | None, ago: timedelta = timedelta(0)) -> int:
        made = store.create_search("first", {}, [], driver=driver)
        move(store, made, -ago)
        return made

    return make


@pytest.mark.parametrize("state", ["complete", "cancelled", "interrupted", "failed", "infeasible"])
def test_a_search_that_has_ended_is_claimed_at_once(store: Store, search: Callable[..., int], state: str) -> None:
    search_id, time = search(ELSEWHERE), Time()
    store.set_search_state(search_id, state, "because")
    before = store.search(search_id)
    record = time.claim(store, search_id)
    assert (record.state, record.reason, record.finished_at) == ("running", "", None)
    assert (record.driver, record.beats) == (HERE, before.beats + 1)
    assert store.search(search_id) == record
    assert (time.naps, time.told) == ([], [])


@pytest.mark.parametrize("ago", [timedelta(0), HOUR, -HOUR], ids=["now", "old", "future"])
def test_a_dead_driver_is_replaced_at_once(store: Store, search: Callable[..., int], ago: timedelta) -> None:
    time = Time()
    assert time.claim(store, search(DEAD, ago)).driver == HERE
    assert time.naps == []


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("ago", [timedelta(0), HOUR, -HOUR], ids=["now", "old", "future"])
def test_a_living_driver_is_named_with_how_to_stop_it(
    store: Store, search: Callable[..., int], ago: timedelta, wait: bool
) -> None:
    search_id, time = search(HERE, ago), Time()
    before = store.search(search_id)
    with pytest.raises(StorageError) as caught:
        time.claim(store, search_id, wait=wait, driver=replace(HERE, pid=1))
    assert str(caught.value) == (
        f'the search "first" is running: its driver is process {HERE.pid} on {HERE.host}: stop that one first '
        f"(`kill -INT {HERE.pid}`)"
    )
    assert time.naps == []
    assert store.search(search_id) == before


@pytest.mark.parametrize("driver", [None, ELSEWHERE], ids=["unknown", "elsewhere"])
@pytest.mark.parametrize("ago", [timedelta(seconds=61), -2 * HOUR], ids=["old", "future"])
def test_a_driver_that_gives_no_sign_for_25_s_is_replaced(
    store: Store, search: Callable[..., int], driver: Driver | None, ago: timedelta
) -> None:
    search_id, time = search(driver, ago), Time()
    assert time.claim(store, search_id).driver == HERE
    assert time.waited == pytest.approx(25)
    assert max(time.naps) <= 0.5
    (told,) = time.told
    assert "waiting for 25 s" in told
    assert ("process 77 on far" in told) == (driver is not None)
    assert store.search(search_id).state == "running"


@pytest.mark.parametrize("after", [0.3, 12.0, 24.9])
def test_a_driver_that_beats_while_it_is_watched_is_left_alone(
    url: str, store: Store, search: Callable[..., int], after: float
) -> None:
    search_id = search(ELSEWHERE, 2 * HOUR)
    with Store.open(url) as other:
        time = Time({after: lambda: other.heartbeat(search_id)})
        with pytest.raises(StorageError, match=r"its driver \(process 77 on far\) gave a sign while it was watched"):
            time.claim(store, search_id)
    assert store.search(search_id).driver == ELSEWHERE
    assert time.waited <= after + 1.5


def test_a_recent_sign_is_refused_with_the_way_to_wait(store: Store, search: Callable[..., int]) -> None:
    time = Time()
    with pytest.raises(StorageError) as caught:
        time.claim(store, search(ELSEWHERE))
    assert '"first" is running: its driver (process 77 on far) was alive 0 s ago' in str(caught.value)
    assert "`archsearch resume first --wait`" in str(caught.value)
    assert (time.naps, time.told) == ([], [])


def test_a_recent_sign_is_watched_for_60_s_by_who_waits(store: Store, search: Callable[..., int]) -> None:
    time = Time()
    assert time.claim(store, search(ELSEWHERE), wait=True).driver == HERE
    assert time.waited == pytest.approx(60)
    assert ["waiting for 60 s" in told for told in time.told] == [True]


def test_a_driver_that_ends_while_it_is_watched_is_replaced(url: str, store: Store, search: Callable[..., int]) -> None:
    search_id = search(ELSEWHERE)
    with Store.open(url) as other:
        time = Time({5.0: lambda: other.set_search_state(search_id, "cancelled", "Ctrl-C")})
        assert time.claim(store, search_id, wait=True).driver == HERE
    assert time.waited <= 6.5


def test_who_interrupts_the_watch_leaves_the_search_as_it_is(store: Store, search: Callable[..., int]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    search_id, time = search(None, HOUR), Time({3.0: interrupt})
    before = store.search(search_id)
    with pytest.raises(KeyboardInterrupt):
        time.claim(store, search_id)
    assert store.search(search_id) == before


def test_a_claim_between_the_last_look_and_the_claim_wins(
    url: str, store: Store, search: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    search_id = search(DEAD)
    look = Store._look

    def look_and_let_another_claim(self: Store, looked: int) -> SearchRecord:
        found = look(self, looked)
        monkeypatch.undo()
        with Store.open(url) as other:
            other.claim_search(looked, driver=ELSEWHERE)
        return found

    monkeypatch.setattr(Store, "_look", look_and_let_another_claim)
    with pytest.raises(StorageError, match=r'"first" was taken up by another process .*process 77 on far'):
        store.claim_search(search_id, driver=HERE)
    assert store.search(search_id).driver == ELSEWHERE


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "abandoned"])
def test_of_two_claimants_one_wins(url: str, store: Store, search: Callable[..., int], ended: bool) -> None:
    search_id = search(ELSEWHERE, HOUR)
    if ended:
        store.set_search_state(search_id, "cancelled")
    before, ready = store.search(search_id), threading.Barrier(2)

    def claim(pid: int) -> str:
        with Store.open(url) as own:
            ready.wait(timeout=240)
            try:
                return f"won by {Time().claim(own, search_id, driver=replace(ELSEWHERE, pid=pid)).driver}"
            except StorageError as error:
                return str(error)

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(claim, (1, 2)))
    after = store.search(search_id)
    assert [text.startswith("won by") for text in told] == [False, True]
    assert told[1] == f"won by {after.driver}"
    assert after.beats == before.beats + 1
