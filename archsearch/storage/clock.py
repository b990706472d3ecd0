"""The database's clock: the server's, or for a file its host's; what a driver takes for the time is never stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from archsearch.storage.tables import UtcDateTime

HOST_CLOCK = "archsearch_now"
"""The function by which a connection to a SQLite file reads `host_now`."""


class DatabaseNow(FunctionElement[datetime]):
    """The moment at which a statement began, as SQL."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(DatabaseNow)
def _host(element: DatabaseNow, compiler: Any, **kw: Any) -> str:
    return f"{HOST_CLOCK}()"


@compiles(DatabaseNow, "postgresql")
def _server(element: DatabaseNow, compiler: Any, **kw: Any) -> str:
    return "statement_timestamp()"


def host_now() -> str:
    """The time of this host in UTC, as SQLite keeps it; SQLite's own function knows no microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def database_now(session: Session) -> datetime:
    """The time, UTC-aware, by the clock of the database."""
    return session.execute(select(DatabaseNow())).scalar_one()
