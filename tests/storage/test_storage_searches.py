"""Searches: made, found by name, kept alive, ended and claimed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from archsearch.errors import StorageError
from archsearch.storage import Driver, Store
from archsearch.storage.records import SearchRecord

SOON = timedelta(seconds=10)


def test_search_comes_back_as_it_went_in(store: Store, search_id: int) -> None:
    before = datetime.now(UTC)
    record = store.search("first")
    assert (record.id, record.name, record.state, record.reason) == (search_id, "first", "running", "")
    assert record.spec == {"seed": 0}
    assert [objective["name"] for objective in record.objectives] == ["recall", "state_bytes"]
    assert record.created_at.tzinfo is UTC
    assert timedelta() <= before - record.created_at < SOON
    assert (record.heartbeat_at, record.finished_at) == (record.created_at, None)
    assert store.search(search_id) == record
    assert store.searches() == [record]
    assert store.plugins(search_id) == [("full", "archsearch", "0.1.0"), ("linear", "archsearch", "0.1.0")]


def test_name_that_is_taken(store: Store, search_id: int) -> None:
    with pytest.raises(StorageError, match=r'already has a search "first": `archsearch resume first` goes on'):
        store.create_search("first", {}, [])
    assert [record.id for record in store.searches()] == [search_id]


@pytest.mark.parametrize(
    ("name", "told"), [("frist", r'\(did you mean "first"\?\)'), ("zzz", "it has first"), (7, 'no search "7"')]
)
def test_unknown_search_names_the_nearest(store: Store, search_id: int, name: str | int, told: str) -> None:
    with pytest.raises(StorageError, match=told):
        store.search(name)


def test_unknown_search_of_an_empty_store(store: Store) -> None:
    with pytest.raises(StorageError, match="it has none"):
        store.search("first")


@pytest.mark.parametrize("state", ["complete", "infeasible", "cancelled", "interrupted", "failed"])
def test_end_of_a_search(store: Store, search_id: int, state: str) -> None:
    store.set_search_state(search_id, state, "because")
    record = store.search("first")
    assert (record.state, record.reason) == (state, "because")
    assert record.finished_at is not None
    assert record.state_now() == state
    store.set_search_state(search_id, "running")
    record = store.search("first")
    assert (record.state, record.reason, record.finished_at) == ("running", "", None)


def test_state_that_does_not_exist(store: Store, search_id: int) -> None:
    with pytest.raises(StorageError, match=r'"completed" is no search state \(did you mean "complete"\?\)'):
        store.set_search_state(search_id, "completed")


def _record(state: str, beat: datetime, read_at: datetime) -> SearchRecord:
    return SearchRecord(
        id=1,
        name="s",
        state=state,
        reason="",
        spec={},
        objectives=(),
        created_at=beat,
        heartbeat_at=beat,
        finished_at=None,
        read_at=read_at,
    )


@pytest.mark.parametrize(
    ("age_s", "state"), [(0, "running"), (60, "running"), (61, "interrupted"), (-60, "running"), (-61, "interrupted")]
)
def test_running_search_is_interrupted_when_its_heartbeat_is_stale(age_s: int, state: str) -> None:
    beat = datetime(2026, 1, 1, tzinfo=UTC)
    now = (beat + timedelta(seconds=age_s)).astimezone(timezone(timedelta(hours=5)))
    assert _record("running", beat, now).state_now() == state


def test_heartbeat(store: Store, search_id: int) -> None:
    before = store.search(search_id)
    store.heartbeat(search_id)
    after = store.search(search_id)
    assert after.heartbeat_at > before.heartbeat_at
    assert after.beats == before.beats + 1


@pytest.mark.parametrize(("seconds", "age"), [(7.5, 7.5), (0, 0.0), (-7195, 0.0)])
def test_no_age_is_negative(seconds: float, age: float) -> None:
    beat = datetime(2026, 1, 1, tzinfo=UTC)
    assert _record("running", beat, beat + timedelta(seconds=seconds)).age == age


@pytest.mark.parametrize("write", ["heartbeat", "mark_orphans"])
def test_search_id_that_does_not_exist(store: Store, write: str) -> None:
    with pytest.raises(StorageError, match="no search with the id 99"):
        getattr(store, write)(99)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.claim_search(99, driver=Driver.here()),
        lambda store: store.set_parts(99, []),
        lambda store: store.set_spec(99, {}),
    ],
    ids=["claim", "parts", "spec"],
)
def test_nothing_is_written_to_a_search_that_does_not_exist(store: Store, write: Callable[[Store], Any]) -> None:
    with pytest.raises(StorageError, match="no search with the id 99"):
        write(store)


def test_a_spec_that_has_grown(store: Store, search_id: int) -> None:
    store.set_spec(search_id, {"seed": 0, "tasks": [{"name": "mqar"}], "limit": float("inf")})
    assert store.search("first").spec == {"seed": 0, "tasks": [{"name": "mqar"}], "limit": None}


PARTS = [("core", "archsearch 0.1.0", "aa"), ("mixer:linear", "archsearch 0.1.0 r1", "bb")]


def test_parts_of_a_search(store: Store) -> None:
    search_id = store.create_search("first", {}, [], parts=iter(PARTS))
    assert store.parts(search_id) == {name: (version, digest) for name, version, digest in PARTS}
    store.set_parts(search_id, [("core", "archsearch 0.2.0", "cc")])
    assert store.parts(search_id) == {"core": ("archsearch 0.2.0", "cc")}
    assert store.parts(search_id + 1) == {}


def test_last_parts_are_those_of_the_newest_search_that_has_them(store: Store) -> None:
    assert store.last_parts() == {}
    store.create_search("old", {}, [], parts=PARTS)
    store.create_search("new", {}, [], parts=[("core", "archsearch 0.2.0", "cc")])
    store.create_search("bare", {}, [])
    assert store.last_parts() == {
        "core": ("archsearch 0.2.0", "cc", "new"),
        "mixer:linear": ("archsearch 0.1.0 r1", "bb", "old"),
    }


def test_one_part_has_one_digest(store: Store, search_id: int) -> None:
    store.set_parts(search_id, PARTS)
    with pytest.raises(StorageError, match=r"(?i)unique"):
        store.set_parts(search_id, [PARTS[0], PARTS[0]])
    assert len(store.parts(search_id)) == 2


def test_spec_with_a_number_that_json_has_no_word_for(store: Store) -> None:
    store.create_search("odd", {"a": float("inf"), "b": (1, float("nan"))}, [])
    assert store.search("odd").spec == {"a": None, "b": [1, None]}


def test_name_that_is_no_text(store: Store) -> None:
    for act in (lambda: store.search("caf\udce9"), lambda: store.create_search("caf\udce9", {}, [])):
        with pytest.raises(StorageError, match="give plain"):
            act()
    assert store.searches() == []


def test_spec_that_is_not_plain_data(store: Store) -> None:
    with pytest.raises(StorageError, match=r"a value cannot be stored .*not JSON serializable"):
        store.create_search("odd", {"a": object()}, [])
    assert store.searches() == []
