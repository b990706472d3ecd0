"""The schema's version: read, checked when a database is opened, and brought up to date by the migrations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, func, inspect, select, text, update

from archsearch.errors import StorageError
from archsearch.storage.engine import WRITES, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.tables import VERSION_TABLE, Search
from archsearch.storage.url import ANOTHER, hide

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

HEAD = "0003"
_WRITERS_OF_THE_VERSION = """
SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
FROM pg_class, aclexplode(relacl)
WHERE pg_class.oid = to_regclass(:name) AND grantee <> relowner AND pg_has_role(relowner, 'USAGE')
AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
"""
"""Whom else a grant lets write to the table; nobody for a role that may not revoke it. A `regrole` is quoted."""

_UPGRADING = 0x61726368  # any number, the same for all who upgrade


def head() -> str:
    """The schema version that this archsearch reads and writes."""
    return HEAD


def current(url: str) -> str | None:
    """The schema version of the database at `url`, None when it has no tables of archsearch; makes no file."""
    engine = open_engine(url, read_only=True)
    try:
        with storage_errors(url), engine.connect() as connection:
            return _version(connection)
    finally:
        engine.dispose()


def upgrade(url: str) -> str:
    """Brings the database at `url` to `head`, making it where there is none, and returns its version.

    Raises `StorageError` for a database of a newer archsearch, and for a SQLite file that holds something else.
    """
    engine = open_engine(url)
    try:
        with storage_errors(url):
            migrate(engine, url)
    finally:
        engine.dispose()
    return HEAD


def make(url: str, version: str) -> None:
    """Makes the tables of an earlier `version`, or of today's, in the empty database at `url`."""
    from alembic import command

    engine = open_engine(url)
    try:
        with storage_errors(url), engine.execution_options(**{WRITES: True}).begin() as connection:
            command.upgrade(_config(connection), version)
            _close_version(connection)
    finally:
        engine.dispose()


def check_known(engine: Engine, url: str) -> None:
    """Raises `StorageError` for a schema that is newer than this archsearch."""
    with engine.connect() as connection:
        _refuse_newer(_version(connection) or HEAD, url)


def migrate(engine: Engine, url: str) -> None:
    """`upgrade` on an open engine, in one transaction that holds the write lock: done wholly or not at all."""
    from alembic import command

    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite took its lock when the transaction began
            connection.execute(select(func.pg_advisory_xact_lock(_UPGRADING)))
        version = _version(connection)
        if version == HEAD:
            _close_version(connection)
            return
        if version is not None:
            _refuse_newer(version, url)
        elif connection.dialect.name == "sqlite":
            _refuse_foreign(connection, url)
        command.upgrade(_config(connection), "head")
        _close_version(connection)
        if version is not None:  # a driver that has the older schema in mind may write no more
            connection.execute(update(Search).where(Search.state == "running").values(fence=Search.fence + 1))


def check(engine: Engine, url: str, *, make: bool) -> None:
    """Makes the tables of a new SQLite file if it may `make` them.

    Any other version than `head` raises `StorageError` with the remedy.
    """
    with engine.connect() as connection:
        version = _version(connection)
        if version == HEAD:
            return
        if version is not None:
            _refuse_newer(version, url)
            raise StorageError(
                f"{hide(url)} has schema {version} and this archsearch needs {HEAD}: run `archsearch db upgrade`"
            )
        if connection.dialect.name != "sqlite":
            raise StorageError(f"{hide(url)} has no archsearch tables yet: run `archsearch db upgrade`")
        _refuse_foreign(connection, url)
    if not make:
        raise StorageError(f"{hide(url)} is empty: `archsearch run SPEC` fills one, or {ANOTHER}")
    migrate(engine, url)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def _close_version(connection: Connection) -> None:
    """Leaves the version to the owner of its table: default privileges let others write to whatever table is made."""
    if connection.dialect.name == "postgresql":
        for grantee in connection.scalars(text(_WRITERS_OF_THE_VERSION), {"name": VERSION_TABLE}).all():
            connection.execute(text(f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {VERSION_TABLE} FROM {grantee}"))


def _refuse_newer(version: str, url: str) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if version not in known:
        raise StorageError(
            f"{hide(url)} has schema {version}, which is newer than this archsearch knows ({HEAD}): "
            f"pip install --upgrade archsearch, or {ANOTHER}"
        )


def _refuse_foreign(connection: Connection, url: str) -> None:
    names = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
    if names:
        raise StorageError(f'{hide(url)} is no archsearch database (it has a table "{min(names)}"): {ANOTHER}')


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())
