"""Backups: a whole database as one SQLite file, whatever it lies on, and back into an empty one."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select, update

from archsearch.errors import StorageError
from archsearch.storage import schema
from archsearch.storage.copying import copy_all
from archsearch.storage.engine import WRITES, for_reading, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.scraps import scratch
from archsearch.storage.tables import JobRow, Search, Trial
from archsearch.storage.url import hide


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds: the schema's version, and how many searches and trials; ``size_bytes`` is the file's."""

    version: str
    searches: int
    trials: int
    size_bytes: int


def file_url(file: str | Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{Path(file).absolute()}"


def back_up(url: str, file: Path, *, replace: bool = False) -> Backup:
    """Writes all that the database at `url` holds, as it is at one moment, to a new SQLite file.

    Searches may go on writing meanwhile. Raises `StorageError` where `file` exists, unless it may be replaced, and
    where the database has no tables; then there is no file.
    """
    if file.exists() and not replace:
        raise StorageError(f"{file} exists: give the backup another name, or add --force")
    version = _version(url)
    with tempfile.TemporaryDirectory(dir=_folder(file), prefix=".backup-") as folder:
        part = Path(folder) / "part.db"
        with _opened(url, read_only=True) as source:
            if source.dialect.name == "sqlite":
                _copy_file(source, part)
            else:
                _copy_rows(source, part, version)
        _check_whole(part)
        with _opened(file_url(part), read_only=True) as made, made.connect() as connection:
            searches, trials = _counts(connection)
        _fold_log(part)
        os.replace(part, file)
    return Backup(version=version, searches=searches, trials=trials, size_bytes=file.stat().st_size)


def restore(url: str, file: Path) -> Backup:
    """Puts all that a backup holds into the database at `url`, with the numbers that trials had.

    The tables are made where there are none. A search that ran at the moment of the backup is one whose driver was
    lost. Raises `StorageError` where the database holds a search, and for a file that is no backup.
    """
    with readable(file_url(file)) as source, _opened(url) as target:
        schema.upgrade(url)
        with source.connect() as reading, target.execution_options(**{WRITES: True}).begin() as writing:
            _refuse_filled(writing, url)
            copy_all(reading, writing)
            writing.execute(update(Search).where(Search.state == "running").values(fence=Search.fence + 1))
            searches, trials = _counts(writing)
    return Backup(version=schema.head(), searches=searches, trials=trials, size_bytes=file.stat().st_size)


@contextmanager
def readable(url: str) -> Iterator[Engine]:
    """An engine for reading the database at `url`, of today's schema; an older SQLite file is copied and the copy
    upgraded. Raises `StorageError`, with the remedy, for an older server and for a newer schema."""
    if _version(url) == schema.head() or not url.startswith("sqlite"):
        with _opened(url, read_only=True) as source, storage_errors(url):
            schema.check(source, url, make=False)
            yield source
        return
    with scratch("copy") as folder:
        copy = folder / "copy.db"
        with _opened(url, read_only=True) as source:
            schema.check_known(source, url)
            _copy_file(source, copy)
        schema.upgrade(file_url(copy))
        with _opened(file_url(copy), read_only=True) as source:
            yield source


@contextmanager
def _opened(url: str, *, read_only: bool = False) -> Iterator[Engine]:
    engine = open_engine(url, read_only=read_only)
    try:
        with storage_errors(url):
            yield for_reading(engine) if read_only else engine
    finally:
        engine.dispose()


def _version(url: str) -> str:
    version = schema.current(url)
    if version is None:
        raise StorageError(f"{hide(url)} holds no tables of archsearch: name the database that holds the searches")
    return version


def _folder(file: Path) -> Path:
    if not file.parent.is_dir():
        raise StorageError(f"there is no directory {file.parent}: make it, or write the backup elsewhere")
    if not os.access(file.parent, os.W_OK):
        raise StorageError(f"{file.parent} is not writable: write the backup elsewhere")
    return file.parent


def _copy_file(source: Engine, file: Path) -> None:
    """SQLite's own online copy: all pages as of one moment, whoever writes."""
    connection = source.raw_connection()
    try:
        read = connection.driver_connection
        assert isinstance(read, sqlite3.Connection)
        with closing(sqlite3.connect(file)) as copy:
            read.backup(copy)
    finally:
        connection.close()


def _copy_rows(source: Engine, file: Path, version: str) -> None:
    """All rows of a server into a file of the same schema, in one transaction that sees one moment."""
    schema.make(file_url(file), version)
    with (
        _opened(file_url(file)) as target,
        source.connect() as reading,
        target.execution_options(**{WRITES: True}).begin() as writing,
    ):
        copy_all(reading, writing)


def _check_whole(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StorageError(f"the database is damaged ({found}): restore an earlier backup")


def _fold_log(file: Path) -> None:
    """Makes the one file whole, without a log beside it."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _counts(connection: Connection) -> tuple[int, int]:
    searches, trials = (
        connection.scalar(select(func.count()).select_from(table.__table__)) or 0 for table in (Search, Trial)
    )
    return searches, trials


def _refuse_filled(connection: Connection, url: str) -> None:
    searches, _ = _counts(connection)
    jobs = connection.scalar(select(func.count()).select_from(JobRow.__table__)) or 0
    if searches or jobs:
        raise StorageError(
            f"{hide(url)} holds {searches} searches and {jobs} jobs, and a backup is restored into an empty database: "
            "make a new one, or bring single searches in with `archsearch db import`"
        )
