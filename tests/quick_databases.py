"""SQLite files of tests: nothing waits for the disk, and tables are made by what the migrations leave."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any

from alembic import command
from sqlalchemy import create_engine, inspect

from archsearch.storage import engine, schema
from archsearch.storage.tables import VERSION_TABLE

migrate = command.upgrade
"""The migrations themselves, for the tests of them."""
_set_up = engine._set_up


def install() -> None:
    """No test pulls the plug, as on the server of the tests; and a few thousand need empty tables, which the migrations
    make in 40 ms and these statements in 2."""
    engine._set_up, command.upgrade = _set_up_quickly, make_tables


def _set_up_quickly(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.execute("PRAGMA synchronous=OFF")
    _set_up(connection, read_only=read_only)
    connection.execute("PRAGMA synchronous=OFF")


def make_tables(config: Any, revision: str, **options: Any) -> None:
    connection = config.attributes["connection"]
    if revision != "head" or connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
        migrate(config, revision, **options)
        return
    for statement in _statements():
        connection.exec_driver_sql(statement)


@cache
def _statements() -> tuple[str, ...]:
    """What makes the tables and indices that the migrations leave, and names their version."""
    memory = create_engine("sqlite://")
    with memory.begin() as connection:
        migrate(schema._config(connection), "head")
        found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        made = tuple(found.scalars())
        version = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    memory.dispose()
    return *made, f"INSERT INTO {VERSION_TABLE} VALUES ('{version}')"
