"""Failures of a database, told in a sentence or two with the remedy and without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, DontWrapMixin, OperationalError, SQLAlchemyError, StatementError

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


class UnstorableError(DontWrapMixin, SQLAlchemyError):
    """A value that is no plain data, so that JSON has no word for it."""


_SERVER_REMEDIES = (
    ("password authentication failed", "give the right user and password (PGPASSWORD or ~/.pgpass)"),
    ("no password supplied", "give one with PGPASSWORD or ~/.pgpass"),
    (r'role ".*" does not exist', "give the right user"),
    (r'database ".*" does not exist', f"make it (`createdb NAME`, then `archsearch db upgrade`), or {ANOTHER}"),
)
"""What a server says to who connects; such a failure has no code."""

_CODE_REMEDIES = {
    "25006": f"it is read-only: give write permission, or {ANOTHER}",
    "42501": f"use a role that has this right, or {ANOTHER}",
    "42P01": f"a table is missing: put back a copy, or {ANOTHER}",
    "42P07": f"the database holds something else: {ANOTHER}",
    "53100": f"the server's disk is full: make room there, or {ANOTHER}",
    "53200": "the server is out of memory: end what else runs there, or give it more, and try again",
    "53300": (
        "every connection that the server allows is taken: end searches or dashboards that nobody needs, or raise "
        "max_connections (or the role's or the database's CONNECTION LIMIT), and try again"
    ),
    "55P03": f"another process has kept it locked for {BUSY_SECONDS:.0f} s: end it, or try again",
    "22001": "give a shorter text",
    "22003": "give a smaller number",
}
"""By SQLSTATE; see the appendix "PostgreSQL Error Codes" of its manual."""

_CODES_OF_CONNECTING = (
    (r"too many clients already|too many connections for|remaining connection slots are reserved", "53300"),
)
"""Who is refused while connecting is told in words alone."""

_TOLD_WITHOUT_THE_SERVER = ("25006", "42P01")
_ASIDES = re.compile(r"\n(LINE \d+: |\s*Is the server running ).*", re.DOTALL)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what SQLAlchemy raises inside into a `StorageError` that names the database.

    So with text that UTF-8 has no form for, numbers that are too great and data that is too deep, which are refused
    in Python's own words.
    """
    try:
        yield
    except (SQLAlchemyError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise StorageError(f"{hide(url)}: {_explain(error, url)}") from None


@contextmanager
def plain_data() -> Iterator[None]:
    """Around what prepares values for a row: those of another shape are refused, as all that cannot be stored."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnstorableError(f"{type(error).__name__}: {error}") from None


def _explain(error: Exception, url: str) -> str:
    orig = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    said = " ".join(_ASIDES.sub("", str(orig)).split())
    if isinstance(error, UnstorableError | UnicodeEncodeError | OverflowError | RecursionError) or (
        isinstance(error, StatementError) and not isinstance(error, DBAPIError)
    ):
        return f"a value cannot be stored ({scrub(said, url)}): give plain data"
    if url.startswith("sqlite"):
        return next((remedy for fragment, remedy in _SQLITE_REMEDIES if fragment in said), said)
    return _explain_server(error, orig, scrub(said, url))


def _explain_server(error: Exception, orig: BaseException, said: str) -> str:
    code = getattr(orig, "sqlstate", None) or getattr(orig, "pgcode", None) or ""
    if code in _TOLD_WITHOUT_THE_SERVER:
        return _CODE_REMEDIES[code]
    remedy = _CODE_REMEDIES.get(code) or next(
        (_CODE_REMEDIES[code] for pattern, code in _CODES_OF_CONNECTING if re.search(pattern, said)), None
    )
    if remedy is None and isinstance(error, OperationalError):
        unreachable = "check that the server runs and that the URL is right, and try again"
        remedy = next((remedy for pattern, remedy in _SERVER_REMEDIES if re.search(pattern, said)), unreachable)
    return f"{said}: {remedy}" if remedy else said
