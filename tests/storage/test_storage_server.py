"""What only a server does: it turns people away, goes away itself, and lets several write at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from database_kinds import on_postgres
from postgres_server import OWNER, PASSWORD, PostgresServer
from sqlalchemy import event
from sqlalchemy.engine import make_url
from storage_samples import measurement

from archsearch.errors import StorageError
from archsearch.storage import Store, rows, upgrade

AddTrial = Callable[..., int]
MODES = pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])


def told(act: Callable[[], Any]) -> str:
    """The one sentence of the error that `act` raises, which holds no password."""
    with pytest.raises(StorageError) as caught:
        act()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    assert "s3cret" not in text
    return text


def ended(postgres: PostgresServer, url: str) -> int:
    """Ends every connection to the database at `url`, and waits until it is gone; how many there were."""
    name, wait_ms = make_url(url).database, 60_000
    ask = "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE datname = %s"
    return len(postgres.execute(ask, values=(wait_ms, name)))


@on_postgres
@MODES
@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"password": "another s3cret"}, "give the right user and password (PGPASSWORD or ~/.pgpass)"),
        ({"username": "nobody"}, "give the right user and password (PGPASSWORD or ~/.pgpass)"),
        ({"database": "none"}, "make it (`createdb NAME`, then `archsearch db upgrade`), or name another database"),
        ({"port": 1}, "check that the server runs and that the URL is right, and try again"),
        ({"host": "nowhere.invalid"}, "check that the server runs and that the URL is right, and try again"),
    ],
    ids=["password", "user", "database", "port", "host"],
)
def test_who_cannot_connect_is_told_why(url: str, changes: dict[str, Any], remedy: str, read_only: bool) -> None:
    wrong = make_url(url).set(**changes).render_as_string(hide_password=False)
    assert remedy in told(lambda: Store.open(wrong, read_only=read_only))


@on_postgres
def test_a_missing_password_is_asked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    bare = make_url(url)._replace(password=None).render_as_string()
    assert "give one with PGPASSWORD or ~/.pgpass" in told(lambda: Store.open(bare))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with Store.open(bare) as store:
        assert store.searches() == []


@on_postgres
def test_a_role_without_rights_is_told(postgres: PostgresServer, url: str) -> None:
    postgres.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    stranger = make_url(url).set(username="stranger", password="stranger").render_as_string(hide_password=False)
    assert "permission denied for table archsearch_version: use a role that" in told(lambda: Store.open(stranger))
    other = postgres.new_database()
    theirs = postgres.url(other, user="stranger", password="stranger")
    assert "permission denied for schema public: use a role that" in told(lambda: upgrade(theirs))


@contextmanager
def ending_connections(postgres: PostgresServer, url: str, store: Store) -> Iterator[None]:
    """The connection of the next statement is ended before it reaches the server."""

    def end(*_: object) -> None:
        assert ended(postgres, url) > 0

    event.listen(store._engine, "before_cursor_execute", end, once=True)
    yield


@on_postgres
def test_a_connection_that_ends_in_the_middle(
    postgres: PostgresServer, url: str, store: Store, search_id: int, add_trial: AddTrial
) -> None:
    trial = add_trial()
    with ending_connections(postgres, url, store):
        assert "and try again" in told(lambda: store.set_trial_state(trial, "failed", "half-way"))
    assert store.trial(trial).state == "running"
    store.set_trial_state(trial, "complete")
    with ending_connections(postgres, url, store):
        assert "and try again" in told(store.searches)
    assert len(store.searches()) == 1


@on_postgres
def test_a_connection_that_ended_meanwhile_is_not_noticed(
    postgres: PostgresServer, url: str, store: Store, search_id: int
) -> None:
    with Store.open(url, read_only=True) as reading:
        for _ in range(2):
            store.heartbeat(search_id)
            assert reading.search("first").id == search_id
            assert ended(postgres, url) == 2


@on_postgres
def test_a_restart_ends_no_driver(postgres: PostgresServer, url: str, store: Store, search_id: int) -> None:
    before = store.search("first").heartbeat_at
    with Store.open(url, read_only=True) as reading:
        with postgres.away(), ThreadPoolExecutor(1) as pool:
            assert "Connection refused: check that the server runs" in told(reading.searches)
            beat = pool.submit(store.heartbeat, search_id)
            time.sleep(0.5)
            assert not beat.done()
            postgres.start()
            beat.result(timeout=240)
        assert reading.search("first").heartbeat_at > before


@on_postgres
def test_a_server_that_stays_away_is_told_after_a_wait(
    postgres: PostgresServer, store: Store, search_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsearch.storage.engine.BUSY_SECONDS", 0.3)
    store.heartbeat(search_id)
    with postgres.away():
        assert "and try again" in told(lambda: store.heartbeat(search_id))
    store.heartbeat(search_id)


@on_postgres
def test_a_name_that_is_taken_in_between(url: str, store: Store) -> None:
    def in_between(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO search"):
            with Store.open(url) as other:
                other.create_search("same", {}, [])

    event.listen(store._engine, "before_cursor_execute", in_between)
    found = told(lambda: store.create_search("same", {}, []))
    assert 'already has a search "same": `archsearch resume same` goes on' in found
    assert len(store.searches()) == 1


@on_postgres
def test_writers_of_one_trial_lose_no_measurement(store: Store, add_trial: AddTrial) -> None:
    trial, writers, seeds = add_trial(seeds=[]), 3, 8

    def write(writer: int) -> None:
        for seed in range(seeds):
            store.add_measurement(trial, measurement(seed=seed), {}, task=f"task{writer}")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    assert [(part.task, part.seed) for part in store.trial(trial).measurements] == [
        (f"task{writer}", seed) for writer in range(writers) for seed in range(seeds)
    ]


def test_a_reader_sees_one_moment(
    url: str, store: Store, search_id: int, add_trial: AddTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_trial(digest="before")
    costs = rows._costs

    def then_a_trial_is_added(*words: Any) -> dict[int, dict[str, float]]:
        found = costs(*words)
        add_trial(digest="in between")
        return found

    with Store.open(url, read_only=True) as reading:
        monkeypatch.setattr(rows, "_costs", then_a_trial_is_added)
        assert [(trial.digest, len(trial.costs)) for trial in reading.trials(search_id)] == [("before", 1)]
    monkeypatch.undo()
    assert len(store.trials(search_id)) == 2


@on_postgres
def test_nobody_is_left_in_a_transaction(postgres: PostgresServer, url: str, store: Store, search_id: int) -> None:
    with pytest.raises(StorageError):
        store.search("nothing")
    with pytest.raises(StorageError):
        store.create_search("first", {}, [])
    store.searches_frame()
    asked = "SELECT DISTINCT state FROM pg_stat_activity WHERE usename = %s AND datname = %s"
    assert postgres.execute(asked, values=(OWNER, make_url(url).database)) == [("idle",)]


@on_postgres
def test_a_value_that_python_has_no_word_for_stops_no_listing(
    postgres: PostgresServer, url: str, store: Store, search_id: int, add_trial: AddTrial
) -> None:
    good, bad = add_trial(digest="good"), add_trial(digest="bad")
    database = str(make_url(url).database)
    postgres.execute("UPDATE trial SET created_at = 'infinity', params = '[1]' WHERE digest = 'bad'", database=database)
    postgres.execute("UPDATE metric SET value = 'NaN' WHERE trial_id = %s", database=database, values=(bad,))
    postgres.execute("UPDATE search SET heartbeat_at = '-infinity'", database=database)
    assert [(trial.id, trial.created_at.year > 1970) for trial in store.trials(search_id)] == [
        (good, True),
        (bad, False),
    ]
    assert store.trials_frame("first")["trial"].tolist() == [good, bad]
    assert store.values_frame("first", ["state_bytes@32768"], ("cost",))["value"].isna().tolist() == [False, True]
    assert store.searches_frame()["state"].tolist() == ["interrupted"]
    assert f"trial {bad}: created_at is 'infinity', not a moment: read as 1970-01-01" in store.remarks()
