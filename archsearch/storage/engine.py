"""Engines: how a database is opened, with what locks, and for how long a lock is waited for.

On SQLite the journal is a write-ahead log, a transaction that writes takes its lock at once (BEGIN IMMEDIATE,
so that none fails half-way), and a reader takes no write lock. The driver's own transaction control is off and
BEGIN is emitted here, the way SQLAlchemy's notes on the sqlite3 driver give for Python 3.11.
"""

from __future__ import annotations

import json
import os
import select
import sqlite3
import time
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from archsearch.errors import StorageError
from archsearch.storage.clock import HOST_CLOCK, host_now
from archsearch.storage.failures import BUSY_SECONDS, UnstorableError
from archsearch.storage.kinds import Unreadable, read_json
from archsearch.storage.mounts import network_kind
from archsearch.storage.url import ANOTHER, hide, read_url, sqlite_path

WRITES = "archsearch_writes"
_CONNECT_SECONDS = 10
_RETRY_SECONDS = 0.2
_TRUSTED_SECONDS = 5.0
"""A connection that was idle for no longer is asked for nothing; a heartbeat comes every 10 s."""
_PIP_NAMES = {"psycopg": "archsearch[postgres]", "psycopg2": "psycopg2-binary"}


def open_engine(url: str, *, read_only: bool = False, create: bool = True) -> Engine:
    """An engine for `url`; with `read_only` it can neither write nor make a file, without `create` not make one.

    Transactions of ``engine.execution_options(**{WRITES: True})`` take the write lock when they begin. Raises
    `StorageError` for a URL, a path or a driver that cannot be used; a server is not asked before the first use.
    """
    parsed = read_url(url)
    path = sqlite_path(parsed)
    if path is None:
        return _server_engine(parsed, url, read_only=read_only)
    check_path(path, url, read_only=read_only, create=create)
    return _sqlite_engine(path, read_only=read_only, create=create)


def _dumps(value: Any) -> str:
    """Drivers that serialise by themselves raise what this raises, as it is."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UnstorableError(str(error)) from None


_JSON: dict[str, Any] = {"json_serializer": _dumps, "json_deserializer": read_json}


def check_path(path: Path, url: str, *, read_only: bool, create: bool) -> None:
    """Raises `StorageError` for what SQLite would tell in no words of the user's, and for a file on a network file
    system that would be written to; a place that may not be looked into counts as absent. Makes nothing."""
    if os.path.isdir(path):
        raise StorageError(f"{hide(url)}: {path} is a directory: add a file name")
    if (read_only or not create) and not os.path.exists(path):
        raise StorageError(f"there is no database at {path}: `archsearch run SPEC` makes one, or {ANOTHER}")
    if not read_only and not create and not os.path.getsize(path):
        raise StorageError(f"{path} is empty: `archsearch run SPEC` fills one, or {ANOTHER}")
    if not os.path.isdir(path.parent):
        raise StorageError(f"{hide(url)}: there is no directory {path.parent}: make it, or {ANOTHER}")
    kind = None if read_only else network_kind(path)
    if kind is not None:
        raise StorageError(
            f"{path} lies on a network file system ({kind}), where SQLite loses what several machines write: name a "
            "file on a disk of this machine with --storage or ARCHSEARCH_STORAGE, or a PostgreSQL database"
        )
    target = path if os.path.exists(path) else path.parent
    if not read_only and not os.access(target, os.W_OK):
        raise StorageError(f"{hide(url)}: {target} is not writable: give write permission, or {ANOTHER}")


def _sqlite_engine(path: Path, *, read_only: bool, create: bool) -> Engine:
    target = f"{path.as_uri()}?{_sqlite_mode(path, read_only=read_only, create=create)}"
    file = _File(path)

    def connect() -> sqlite3.Connection:
        if not read_only:
            file.check()
        connection = sqlite3.connect(
            target, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        _set_up(connection, read_only=read_only)
        return connection

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        if writes:
            file.check()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, **_JSON)
    event.listen(engine, "begin", begin)
    return engine


class _File:
    """The file that is written to: what goes into one that was removed or replaced is lost, and nobody is told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises `StorageError` where another file, or none, stands in the place of the one that was opened."""
        try:
            found = os.stat(self._path)
            now = (found.st_dev, found.st_ino)
        except OSError:
            now = None
        if self._opened is not None and now != self._opened:
            done = "removed" if now is None else "replaced by another file"
            raise StorageError(
                f"{self._path} was {done} while it was in use: what was written since is lost; put a copy of it back, "
                "and `archsearch resume NAME` goes on from there"
            )
        self._opened = now


def _sqlite_mode(path: Path, *, read_only: bool, create: bool) -> str:
    """How SQLite opens the file; a reader that may not write there must leave no log or index of its own beside it.

    Without a log nobody is writing, and the file is read as it is.
    """
    if not read_only:
        return "mode=rwc" if create else "mode=rw"
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return "mode=rw"
    return "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"


_decode = methodcaller("decode", "utf-8", "replace")
"""Bytes that are no text must not end the reading of the other rows."""


def _set_up(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.text_factory = _decode
    connection.create_function(HOST_CLOCK, 0, lambda: host_now())
    connection.execute("PRAGMA foreign_keys=ON")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
        return
    _use_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")


def _use_log(connection: sqlite3.Connection) -> None:
    """Switches to the write-ahead log; SQLite does not wait for this lock, so that two who make one file must."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def for_reading(engine: Engine) -> Engine:
    """`engine` for transactions that write nothing, and see on a server too the database as it was at one moment."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _read_any_moment(connection: Any, record: ConnectionPoolEntry) -> None:
    """A moment that Python has no word for, such as "infinity", must not end the reading of the other rows."""
    from psycopg import DataError
    from psycopg.types.datetime import TimestamptzLoader

    class Loader(TimestamptzLoader):  # type: ignore[misc]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except DataError:
                return Unreadable(bytes(data).decode())

    connection.adapters.register_loader("timestamptz", Loader)


def _bound_waits(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """A lock is waited for as long as on SQLite; a process that stops in a transaction loses it, and its locks."""
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{2 * BUSY_SECONDS}s'")
    cursor.close()
    connection.commit()


class _Pinger:
    """Asks whether a connection lives before it is used again, unless that can be told from its socket.

    A server that ends a connection says so, which waits there to be read; one that was idle for long may have been
    forgotten on the way.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def listen(self, engine: Engine) -> None:
        """From now on, of every connection."""
        event.listen(engine, "checkin", self._used)
        event.listen(engine, "checkout", self._check)

    def _used(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    def _check(self, connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        used = record.info.pop("used", None)
        if used is None or (time.monotonic() - used < _TRUSTED_SECONDS and not _has_news(connection)):
            return
        try:
            self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error:
            raise InvalidatePoolError from None


def _has_news(connection: Any) -> bool:
    """Whether something waits to be read, or that cannot be known."""
    news = select.poll()
    try:
        news.register(connection.fileno(), select.POLLIN)
    except Exception:  # of the driver's own kind, where it is closed; some have no such method
        return True
    return bool(news.poll(0))


class _Connector:
    """Connects; to a server that has answered before it tries for `BUSY_SECONDS`, as a restart ends no search."""

    def __init__(self) -> None:
        self._answered = False

    def __call__(
        self, dialect: Dialect, record: ConnectionPoolEntry, words: list[Any], options: dict[str, Any]
    ) -> DBAPIConnection:
        deadline = time.monotonic() + (BUSY_SECONDS if self._answered else 0)
        while True:
            try:
                connection = dialect.connect(*words, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                self._answered = True
                return connection


def _server_engine(parsed: URL, url: str, *, read_only: bool) -> Engine:
    options: dict[str, Any] = {"execution_options": {"postgresql_readonly": True}} if read_only else {}
    try:
        driver = parsed.get_dialect().driver
        if driver.startswith("psycopg") and "connect_timeout" not in parsed.query:
            options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
        engine = create_engine(parsed, **_JSON, **options)
    except NoSuchModuleError:
        raise StorageError(
            f"{hide(url)}: no driver is called {parsed.drivername}: write postgresql+psycopg://"
        ) from None
    except ModuleNotFoundError as error:
        package = _PIP_NAMES.get(error.name or "", error.name)
        raise StorageError(f"{hide(url)}: its driver is not installed: pip install '{package}'") from None
    _Pinger(engine.dialect).listen(engine)
    if not read_only:
        event.listen(engine, "do_connect", _Connector())
        event.listen(engine, "connect", _bound_waits)
    if driver == "psycopg":
        event.listen(engine, "connect", _read_any_moment)
    if engine.dialect.is_async:
        raise StorageError(f"{hide(url)}: {engine.dialect.driver} is asynchronous: write postgresql+psycopg://")
    return engine
