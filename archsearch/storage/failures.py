"""Failures of a database, told in a sentence or two with the remedy and without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, StatementError

from archsearch.errors import StorageError
from archsearch.storage.url import ANOTHER, hide, scrub

BUSY_SECONDS = 30.0

_SQLITE_REMEDIES = (
    ("database is locked", f"another process has kept it locked for {BUSY_SECONDS:.0f} s: end it, or try again"),
    ("readonly database", f"it is read-only: give write permission, or {ANOTHER}"),
    ("not a database", f"the file is not a SQLite database: {ANOTHER}"),
    ("unable to open database file", f"the file cannot be opened or made: check its permissions, or {ANOTHER}"),
    ("malformed", f"the file is damaged: put back a copy, or {ANOTHER}"),
    ("disk I/O error", f"the disk cannot be read or written: check it, or {ANOTHER}"),
    ("disk is full", f"the disk is full: make room, or {ANOTHER}"),
    ("no such table", f"a table is missing: put back a copy, or {ANOTHER}"),
)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what SQLAlchemy raises inside into a `StorageError` that names the database."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(f"{hide(url)}: {_explain(error, url)}") from None


def _explain(error: SQLAlchemyError, url: str) -> str:
    orig = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    said = " ".join(str(orig).split())
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return f"a value cannot be stored ({scrub(said, url)}): give plain data"
    if url.startswith("sqlite"):
        return next((remedy for fragment, remedy in _SQLITE_REMEDIES if fragment in said), said)
    remedy = ": check that the server runs and that the URL is right" if isinstance(error, OperationalError) else ""
    return scrub(said, url) + remedy
