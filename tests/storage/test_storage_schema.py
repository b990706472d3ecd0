"""The schema: migrated when new, equal to the tables, and refused when it is another."""

from __future__ import annotations

import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import quick_databases
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from database_kinds import POSTGRESQL, on_sqlite
from sqlalchemy import inspect

from archsearch.errors import StorageError
from archsearch.storage import Store, current, head, schema, upgrade
from archsearch.storage.engine import WRITES, open_engine
from archsearch.storage.tables import VERSION_TABLE, Base

pytestmark = pytest.mark.usefixtures("migrated")


def _execute(url: str, statement: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_migrated_schema_equals_the_tables(blank_url: str) -> None:
    upgrade(blank_url)
    engine = open_engine(blank_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_other_tests_have_the_tables_that_the_migrations_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(f"sqlite:///{tmp_path}/migrated.db")
    monkeypatch.setattr(command, "upgrade", quick_databases.make_tables)
    upgrade(f"sqlite:///{tmp_path}/made.db")
    dumps = []
    for name in ("migrated", "made"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
            dumps.append(list(connection.iterdump()))
    assert dumps[0] == dumps[1]
    assert len(dumps[0]) > 10


def test_head_is_the_newest_migration() -> None:
    assert schema._scripts().get_heads() == [head()]


def test_downgrade_leaves_nothing(blank_url: str) -> None:
    upgrade(blank_url)
    engine = open_engine(blank_url)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        command.downgrade(schema._config(connection), "base")
    assert inspect(engine).get_table_names() == [VERSION_TABLE]
    engine.dispose()
    assert current(blank_url) is None
    assert upgrade(blank_url) == head()
    with Store.open(blank_url) as store:
        assert store.searches() == []


@on_sqlite
def test_new_file_is_migrated_when_it_is_opened(url: str) -> None:
    Store.open(url).close()
    assert current(url) == head()


@pytest.mark.parametrize("blank_url", [POSTGRESQL], indirect=True)
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_a_server_gets_its_tables_when_asked_only(blank_url: str, read_only: bool) -> None:
    with pytest.raises(StorageError, match="has no archsearch tables yet: run `archsearch db upgrade`"):
        Store.open(blank_url, read_only=read_only)
    assert current(blank_url) is None


def test_upgrade_twice_changes_nothing(blank_url: str) -> None:
    assert upgrade(blank_url) == upgrade(blank_url) == current(blank_url) == head()


def test_a_directory_whose_name_needs_quoting(tmp_path: Path) -> None:
    odd = tmp_path / "50% of #1 & more"
    odd.mkdir()
    with Store.open(f"sqlite:///{odd}/a b.db") as store:
        store.create_search("s", {}, [])
    assert (odd / "a b.db").exists()


def test_relative_path_holds_after_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///a.db") as store:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        store.create_search("s", {}, [])
    assert (tmp_path / "a.db").exists()
    assert not (tmp_path / "other" / "a.db").exists()


@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_newer_schema_is_refused(url: str, read_only: bool) -> None:
    upgrade(url)
    _execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StorageError, match=r"schema 9999.*newer.*pip install --upgrade archsearch"):
        Store.open(url, read_only=read_only)
    with pytest.raises(StorageError, match="newer"):
        upgrade(url)
    assert current(url) == "9999"


@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_older_schema_is_refused_until_it_is_upgraded(
    url: str, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    version = upgrade(url)
    monkeypatch.setattr(schema, "HEAD", "9999")
    with pytest.raises(StorageError, match=rf"schema {version}.*needs 9999: run `archsearch db upgrade`"):
        Store.open(url, read_only=read_only)


@on_sqlite
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_database_of_something_else_is_left_alone(url: str, tmp_path: Path, read_only: bool) -> None:
    with sqlite3.connect(tmp_path / "searches.db") as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    with pytest.raises(StorageError, match=r'no archsearch database \(it has a table "recipes"\)'):
        Store.open(url, read_only=read_only)
    with pytest.raises(StorageError, match="recipes"):
        upgrade(url)


@on_sqlite
def test_reading_makes_no_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no database at .*`archsearch run SPEC`.*--storage"):
        Store.open(url, read_only=True)
    with pytest.raises(StorageError, match="there is no database"):
        current(url)
    assert list(tmp_path.iterdir()) == []


@on_sqlite
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_without_creation_no_file_is_made(url: str, tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(StorageError) as caught:
        Store.open(url, read_only=read_only, create=False)
    assert str(caught.value) == (
        f"there is no database at {tmp_path}/searches.db: `archsearch run SPEC` makes one, or name another database "
        "with --storage or ARCHSEARCH_STORAGE"
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "searches.db").touch()
    with pytest.raises(StorageError, match="is empty"):
        Store.open(url, read_only=read_only, create=False)
    assert (tmp_path / "searches.db").stat().st_size == 0


def test_where_a_relative_path_was_looked_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=f"there is no database at {tmp_path}/a.db"):
        Store.open("sqlite:///a.db", create=False)


def test_what_exists_is_opened_without_creation(url: str) -> None:
    Store.open(url).close()
    with Store.open(url, create=False) as store:
        assert store.create_search("s", {}, []) == 1


@on_sqlite
def test_reading_an_empty_file_leaves_it_empty(url: str, tmp_path: Path) -> None:
    (tmp_path / "searches.db").touch()
    with pytest.raises(StorageError, match=r"is empty: `archsearch run SPEC` fills one"):
        Store.open(url, read_only=True)
    assert current(url) is None
    assert (tmp_path / "searches.db").stat().st_size == 0


def test_failed_migration_leaves_nothing(blank_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("stop")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(StorageError, match="stop"):
            upgrade(blank_url)
    assert current(blank_url) is None
    assert upgrade(blank_url) == head()


def test_upgrades_at_the_same_time(blank_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(upgrade, [blank_url] * 3)) == [head()] * 3


@pytest.mark.parametrize("blank_url", [POSTGRESQL], indirect=True)
def test_a_table_of_something_else_stays(blank_url: str) -> None:
    _execute(blank_url, "CREATE TABLE trial (id INTEGER)")
    with pytest.raises(StorageError, match='relation "trial" already exists: the database holds something else: name'):
        upgrade(blank_url)
    assert current(blank_url) is None


def _open_and_name(url: str, name: str) -> None:
    with Store.open(url) as store:
        store.create_search(name, {}, [])


@on_sqlite
def test_processes_that_make_one_file_together(url: str) -> None:
    names = [f"search-{index}" for index in range(3)]
    with multiprocessing.get_context("spawn").Pool(len(names)) as pool:
        pool.starmap(_open_and_name, [(url, name) for name in names])
    with Store.open(url, read_only=True) as store:
        assert sorted(record.name for record in store.searches()) == names
