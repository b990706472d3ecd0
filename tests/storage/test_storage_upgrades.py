"""Upgrades while searches run: a driver of the schema before is cut off by its fence, and what it wrote is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_rows import insert, writing
from sqlalchemy import Connection, text

from archsearch.errors import StorageError
from archsearch.storage import Lease, Store, current, head, schema, upgrade

WHEN = "2026-01-02 03:04:05.000006+00:00"
pytestmark = pytest.mark.usefixtures("migrated")

NEXT = '''"""A schema of tomorrow."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("search", sa.Column("colour", sa.String(length=20)))
'''


def _search(connection: Connection, number: int, state: str) -> None:
    insert(
        connection,
        "search",
        id=number,
        name=state,
        state=state,
        reason="",
        spec={},
        objectives=[],
        created_at=WHEN,
        heartbeat_at=WHEN,
    )


def _trial(connection: Connection, number: int) -> None:
    """A trial with the columns that every schema has."""
    insert(
        connection,
        "trial",
        search_id=1,
        number=number,
        kind="search",
        state="complete",
        reason="",
        arch={"layers": []},
        digest=f"d{number}",
        pattern="full",
        params={},
        seeds=[0],
        violations={},
        unexercised=[],
        created_at=WHEN,
    )


@pytest.fixture
def tomorrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes this archsearch one whose schema is one further; `monkeypatch.undo` brings it back."""
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "0004_colours.py").write_text(NEXT)
    known, config = Path(schema.__file__).parent / "migrations" / "versions", schema._config

    def further(connection: Connection | None = None) -> Any:
        made = config(connection)
        made.set_main_option("version_locations", f"{known}:{folder}")
        return made

    def begin() -> None:
        monkeypatch.setattr(schema, "_config", further)
        monkeypatch.setattr(schema, "HEAD", "0004")

    return begin


def test_an_upgrade_cuts_off_the_drivers_of_running_searches_alone(
    blank_url: str, tomorrow: Callable[[], None]
) -> None:
    upgrade(blank_url)
    with Store.open(blank_url) as store:
        running, ended = (store.create_search(name, {}, []) for name in ("running", "ended"))
        store.set_search_state(ended, "complete")
        fences = [store.search(number).fence for number in (running, ended)]
    tomorrow()
    for _ in range(2):  # one that does nothing cuts nobody off
        assert upgrade(blank_url) == "0004"
        with Store.open(blank_url) as store:
            assert [store.search(number).fence for number in (running, ended)] == [fences[0] + 1, fences[1]]


def test_a_driver_of_the_schema_before_opens_no_newer_database(
    blank_url: str, tomorrow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tomorrow()
    upgrade(blank_url)
    monkeypatch.undo()
    assert head() == "0003"
    with pytest.raises(StorageError, match=r"schema 0004, which is newer than .* knows \(0003\): pip install"):
        Store.open(blank_url)
    assert current(blank_url) == "0004"


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_what_a_driver_of_an_older_schema_writes_meanwhile_is_kept(blank_url: str, version: str) -> None:
    schema.make(blank_url, version)
    with writing(blank_url) as connection:
        _search(connection, 1, "running")
        _trial(connection, 0)
    upgrade(blank_url)
    with writing(blank_url) as connection:  # the driver has not been stopped, and knows nothing of it
        _trial(connection, 1)
        connection.execute(text("UPDATE search SET heartbeat_at = :now WHERE id = 1"), {"now": WHEN})
    with Store.open(blank_url) as store:
        assert [trial.digest for trial in store.trials(1)] == ["d0", "d1"]
        assert store.trials(1)[1].attempts == 0
        assert (store.search(1).tags, store.search(1).fence) == ((), 1)
        assert store.remarks() == []


def test_a_driver_that_an_upgrade_cut_off_writes_nothing_and_is_told_why(
    blank_url: str, tomorrow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(blank_url)
    with Store.open(blank_url) as store:
        search = store.create_search("running", {}, [])
        driver = Lease(store, search)
        driver.heartbeat(search)
        beats = store.search(search).beats
        tomorrow()
        upgrade(blank_url)
        monkeypatch.undo()
        for write in (
            lambda: driver.heartbeat(search),
            lambda: driver.set_search_state(search, "failed"),
            lambda: driver.link_proposal(1, 1),
            lambda: driver.add_parts(search, [("core", "1", "c")]),
        ):
            with pytest.raises(StorageError, match=r"schema 0004, which is newer than .* knows \(0003\)"):
                write()
        assert (store.search(search).beats, store.search(search).state, store.parts(search)) == (beats, "running", {})
