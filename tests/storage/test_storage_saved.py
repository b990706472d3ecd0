"""Saved databases: what every earlier version wrote, by its own code, is read and gone on with after an upgrade.

`saved/VERSION.KIND.sql` are dumps of databases that the code of that schema filled: 0001 is that of archsearch 0.1.0.
"""

from __future__ import annotations

import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from alembic import command
from postgres_server import PostgresServer
from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from test_storage_lease import claim, new_trial

from archsearch.errors import StorageError
from archsearch.storage import Lease, Store, current, head, schema, upgrade
from archsearch.storage.engine import open_engine

pytestmark = pytest.mark.usefixtures("migrated")

SAVED = Path(__file__).with_name("saved")
VERSIONS = sorted({path.name.partition(".")[0] for path in SAVED.glob("*.sql")})


@pytest.fixture(params=VERSIONS)
def saved_url(request: pytest.FixtureRequest, blank_url: str) -> str:
    """A database as a version left it."""
    return load(request, blank_url, request.param)


def load(request: pytest.FixtureRequest, url: str, version: str) -> str:
    """Fills a blank database with what was saved of a version."""
    name = make_url(url).database
    kind = make_url(url).get_backend_name()
    dump = (SAVED / f"{version}.{kind}.sql").read_text()
    if kind == "sqlite":
        with closing(sqlite3.connect(str(name))) as database:
            database.executescript(dump)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        server.execute(dump, database=str(name))
    return url


def test_every_earlier_version_is_saved() -> None:
    known = {script.revision for script in schema._scripts().walk_revisions()}
    assert {*VERSIONS, head()} == known


def test_a_saved_database_says_what_it_is_until_it_is_upgraded(saved_url: str) -> None:
    version = current(saved_url)
    assert version in VERSIONS
    with pytest.raises(StorageError, match=f"has schema {version} .* run `archsearch db upgrade`"):
        Store.open(saved_url)
    assert upgrade(saved_url) == current(saved_url) == head()
    assert upgrade(saved_url) == head()


def test_an_upgraded_schema_is_that_of_a_new_database(saved_url: str, tmp_path: Path) -> None:
    upgrade(saved_url)
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    upgrade(fresh)
    assert columns(saved_url) == columns(fresh)


def columns(url: str) -> dict[str, list[tuple[str, bool]]]:
    """The columns of every table, and whether they may be NULL."""
    engine = open_engine(url, read_only=True)
    with engine.connect() as connection:
        seen = inspect(connection)
        found = {
            table: sorted((str(column["name"]), bool(column["nullable"])) for column in seen.get_columns(table))
            for table in seen.get_table_names()
        }
    engine.dispose()
    return found


def test_what_was_saved_is_read_and_gone_on_with(saved_url: str) -> None:
    has_drivers = current(saved_url) != "0001"
    upgrade(saved_url)
    with Store.open(saved_url) as store:
        quick, lost = store.searches()
        assert (quick.name, quick.state, quick.reason) == ("quick", "complete", "3 candidates were trained")
        assert quick.spec == {"name": "quick", "seed": 0, "search": {"trials": 3}}
        assert (lost.name, lost.state, lost.state_now()) == ("lost", "running", "interrupted")
        assert (lost.beats, lost.fence, lost.owner, lost.tags) == (int(has_drivers), 1, None, ())
        assert (lost.driver is not None, len(store.parts(quick.id))) == (has_drivers, 2 * has_drivers)
        assert store.plugins(quick.id) == [("full", "archsearch", "0.1.0"), ("sliding", "archsearch", "0.1.0")]
        _check_trials(store, quick.id)
        assert store.find_measurement("k0") is not None
        assert store.remarks() == []

        lease = Lease(store, lost.id, claim(store, lost.id).fence)
        assert [trial.digest for trial in lease.mark_orphans(lost.id)] == ["d5"]
        added = store.trial(lease.add_trial(lost.id, new_trial()))
        assert (added.number, added.attempts, added.placement) == (1, 0, None)


def _check_trials(store: Store, search_id: int) -> None:
    first, second, third = (store.trial(trial.id) for trial in store.trials(search_id))
    assert [(one.number, one.kind, one.state) for one in (first, second, third)] == [
        (0, "search", "complete"),
        (1, "search", "infeasible"),
        (2, "confirm", "diverged"),
    ]
    assert (second.pattern, second.violations) == ("moba*2 — é", {"state_bytes@32768": 0.5})
    assert (third.parent, third.measurements[0].reused_from) == (first.id, first.id)
    assert first.costs == {"state_bytes@32768": 4096.0}
    assert [(layer.layer, layer.task, layer.seq_len) for layer in first.unexercised] == [
        ("sliding(window=64)", "mqar", 48)
    ]
    assert [(one.task, one.seed, one.payload["test"]) for one in first.measurements] == [
        ("mqar", seed, {"accuracy": 0.25}) for seed in (0, 1)
    ]
    metrics = store.metrics_frame("quick", ("test", "progress"))
    assert len(metrics) == 2 + 4 + 2 + 1 + 2
    assert sum(math.isnan(value) for value in metrics["value"]) == 3


# -- two at once -----------------------------------------------------------------------------------------------


class Slow:
    """An upgrade that stops before its end until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end, self.upgrades = Event(), Event(), 0
        self._real = command.upgrade
        monkeypatch.setattr(command, "upgrade", self._upgrade)

    def _upgrade(self, *words: Any) -> None:
        self.upgrades += 1
        self._real(*words)
        self.begun.set()
        assert self.may_end.wait(240)


@pytest.fixture
def first_url(request: pytest.FixtureRequest, blank_url: str) -> str:
    """A database of the first version."""
    return load(request, blank_url, VERSIONS[0])


def test_a_second_upgrader_waits_for_the_first(first_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(upgrade, first_url)
        assert slow.begun.wait(240)
        second = pool.submit(upgrade, first_url)
        assert not second.done()
        slow.may_end.set()
        assert {first.result(timeout=240), second.result(timeout=240)} == {head()}
    assert slow.upgrades == 1
    with Store.open(first_url) as store:
        assert len(store.searches()) == 2


def test_a_second_upgrader_leaves_when_the_first_takes_too_long(
    first_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(upgrade, first_url)
        assert slow.begun.wait(240)
        monkeypatch.setattr("archsearch.storage.engine.BUSY_SECONDS", 0.2)
        with pytest.raises(StorageError, match="another process has kept it locked"):
            upgrade(first_url)
        slow.may_end.set()
        assert first.result(timeout=240) == head()
