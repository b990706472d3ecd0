"""Backups: all that a database holds in one file while searches write, and back with the numbers of trials."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from database_kinds import on_sqlite
from sqlalchemy import select
from storage_samples import OBJECTIVES, measurement

from archsearch.errors import StorageError
from archsearch.storage import Driver, NewProposal, NewTrial, Store, current, head, schema, upgrade
from archsearch.storage.backup import back_up, file_url, restore
from archsearch.storage.engine import WRITES, open_engine
from archsearch.storage.tables import VERSION_TABLE, Base

Add = Callable[..., int]


def _rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    engine = open_engine(url, read_only=True)
    with engine.connect() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(table.c.id))]
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return found


def _filled(store: Store, search_id: int, add: Add) -> None:
    first = add(state="complete", reason="Ünïcode \\ 'quoted'", costs={"state_bytes@32768": 1e300})
    add(kind="confirm", parent=first, seeds=[2**40], state="running")
    found = measurement(curve=[{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.5}])
    store.add_measurement(first, found, {"test": {"mqar.accuracy": 0.25}}, task="mqar")
    store.set_parts(search_id, [("mixer:full", "0.1.0", "d")])
    store.propose(search_id, [NewProposal(digest="d9", arch={"layers": []}, pattern="full")], owner="ada")
    store.edit_search("first", tag=["paper"], note="for the appendix")
    second = store.create_search("second", {}, OBJECTIVES, driver=Driver.here())
    trial = NewTrial(
        kind="search",
        state="complete",
        arch={},
        digest="d0",
        pattern="full",
        params={},
        seeds=[0],
        costs={},
        violations={},
    )
    store.add_measurement(store.add_trial(second, trial), measurement(), {}, task="mqar", reused_from=first)


def test_a_backup_holds_every_row_and_is_a_database(
    url: str, store: Store, search_id: int, add_trial: Add, tmp_path: Path
) -> None:
    _filled(store, search_id, add_trial)
    file = tmp_path / "copies" / "all of it.db"
    file.parent.mkdir()
    made = back_up(url, file)
    assert (made.version, made.searches, made.trials) == (head(), 2, 3)
    assert made.size_bytes == file.stat().st_size
    assert [path.name for path in file.parent.iterdir()] == ["all of it.db"], "no log and no part beside it"
    assert _rows(file_url(file)) == _rows(url)
    with Store.open(file_url(file), read_only=True) as copy:
        assert [record.name for record in copy.searches()] == ["first", "second"]


def test_a_backup_comes_back_whole_and_goes_on(
    url: str, blank_url: str, store: Store, search_id: int, add_trial: Add, tmp_path: Path
) -> None:
    _filled(store, search_id, add_trial)
    back_up(url, tmp_path / "copy.db")
    if blank_url == url:
        blank_url = f"sqlite:///{tmp_path}/restored.db"
    made = restore(blank_url, tmp_path / "copy.db")
    assert (made.searches, made.trials) == (2, 3)
    before, after = _rows(url), _rows(blank_url)
    fence = [column.name for column in Base.metadata.tables["search"].columns].index("fence")
    for row, other in zip(before["search"], after["search"], strict=True):
        assert other[:fence] + other[fence + 1 :] == row[:fence] + row[fence + 1 :]
        assert other[fence] == row[fence] + 1, "a driver of the database before may not write to this one"
    assert {name: rows for name, rows in after.items() if name != "search"} == {
        name: rows for name, rows in before.items() if name != "search"
    }
    with Store.open(blank_url) as restored:
        new = restored.create_search("third", {}, OBJECTIVES)
        assert new > max(int(str(row[0])) for row in before["search"])
        assert restored.trial(1).measurements[0].payload["curve"][0]["loss"] is None


def test_a_backup_is_restored_into_an_empty_database_only(
    url: str, store: Store, search_id: int, tmp_path: Path
) -> None:
    back_up(url, tmp_path / "copy.db")
    with pytest.raises(StorageError, match=r"holds 1 searches .* empty database: .*`archsearch db import`"):
        restore(url, tmp_path / "copy.db")
    assert len(store.searches()) == 1


def test_while_searches_write_a_backup_is_of_one_moment(
    url: str, store: Store, search_id: int, add_trial: Add, tmp_path: Path
) -> None:
    """Every trial is stored with its costs in one transaction: a backup has both of each, or neither."""
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            written.append(add_trial(digest=f"d{len(written)}"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            seen = len(written)
            made = back_up(url, tmp_path / f"{number}.db")
            assert made.trials >= seen
    finally:
        stop.set()
        writer.join()
    assert len(written) >= 1
    for number in range(5):
        rows = _rows(file_url(tmp_path / f"{number}.db"))
        numbers = [row[2] for row in rows["trial"]]
        assert numbers == list(range(len(numbers)))
        assert [row[1] for row in rows["metric"]] == [row[0] for row in rows["trial"]]


def test_a_file_is_not_replaced_unasked(url: str, store: Store, search_id: int, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    file.write_text("precious")
    with pytest.raises(StorageError, match=r"copy\.db exists: .*--force"):
        back_up(url, file)
    assert file.read_text() == "precious"
    assert back_up(url, file, replace=True).searches == 1


def test_what_cannot_be_backed_up_leaves_no_file(blank_url: str, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "copy.db"
    upgrade(blank_url)
    with pytest.raises(StorageError, match="there is no directory"):
        back_up(blank_url, missing)
    with pytest.raises(StorageError, match="there is no database at"):
        back_up(f"sqlite:///{tmp_path}/nothing.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@on_sqlite
def test_a_damaged_file_is_no_backup(url: str, store: Store, search_id: int, add_trial: Add, tmp_path: Path) -> None:
    for number in range(50):
        add_trial(digest=f"d{number}")
    store.close()
    path = tmp_path / "searches.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for page in range(4, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StorageError):
        back_up(url, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_a_database_is_backed_up_before_it_is_upgraded(blank_url: str, tmp_path: Path, version: str) -> None:
    schema.make(blank_url, version)
    engine = open_engine(blank_url)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO search (id, name, state, reason, spec, objectives, created_at, heartbeat_at) VALUES "
            "(5, 'old', 'cancelled', '', '{}', '[]', '2026-01-02 03:04:05+00:00', '2026-01-02 03:04:05+00:00')"
        )
    engine.dispose()
    made = back_up(blank_url, tmp_path / "old.db")
    assert (made.version, made.searches, current(file_url(tmp_path / "old.db"))) == (version, 1, version)
    target = f"sqlite:///{tmp_path}/new.db"
    assert restore(target, tmp_path / "old.db").version == head() == current(target)
    assert current(file_url(tmp_path / "old.db")) == version, "the backup stays as it was"
    with Store.open(target, read_only=True) as store:
        assert (store.search("old").id, store.search("old").created_at.isoformat()) == (5, "2026-01-02T03:04:05+00:00")


def test_what_is_no_backup_is_refused(blank_url: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    with pytest.raises(StorageError, match="there is no database"):
        restore(blank_url, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(StorageError, match="holds no tables of archsearch"):
        restore(blank_url, file)
    file.write_text("no database at all, but a text that is long enough to be looked at as one" * 20)
    with pytest.raises(StorageError):
        restore(blank_url, file)
    file.unlink()
    upgrade(file_url(file))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    with pytest.raises(StorageError, match="newer than this archsearch knows"):
        restore(blank_url, file)
