"""Database URLs: read, checked, and shown without their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from archsearch.errors import StorageError
from archsearch.secrets_file import exposed

VARIABLE, FILE_VARIABLE = "ARCHSEARCH_STORAGE", "ARCHSEARCH_STORAGE_FILE"
"""The database's URL, and a file that holds it: what a process has in its environment many can read."""
DEFAULT = "sqlite:///archsearch.db"
ANOTHER = "name another database with --storage or ARCHSEARCH_STORAGE"
_FORMS = "write sqlite:///FILE or postgresql://USER@HOST/NAME"
_USER_INFO = re.compile(r"(?P<before>:/{1,2}[^:/@]*):.*@", re.DOTALL)
_USER_WITH_AT = re.compile(r"(?P<before>:/{1,2}[^:/]*):(?!\d+(?:[/?]|\Z)).*@", re.DOTALL)
_WITHOUT_SLASHES = re.compile(r"\A(?P<before>(?:postgres\w*(?:\+\w+)?:)?[^:/@]*):(?!/).*@", re.DOTALL)
_WITHOUT_HOST = re.compile(r"(?P<before>://[^:/@]*):(?!\d*(?:[/?]|\Z))[^@]*\Z", re.DOTALL)
"""What may be meant as ``user:password@`` in a URL that is written right, and in three that are not."""
_BETWEEN = re.compile(r"[\s;]")
_SECRET_KEY = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)


def storage_url(url: str | None = None, *, spec: str | None = None) -> str:
    """The database to use: `url` (the command line's), else ``ARCHSEARCH_STORAGE``, else what the file
    ``ARCHSEARCH_STORAGE_FILE`` holds, else `spec`'s, else `DEFAULT`.

    Raises `StorageError` for a file that cannot be read, that others can read, or that holds no single line.
    """
    return url or os.environ.get(VARIABLE) or _from_file(os.environ.get(FILE_VARIABLE)) or spec or DEFAULT


def _from_file(named: str | None) -> str | None:
    if not named:
        return None
    path = Path(named).expanduser()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(
            f"{FILE_VARIABLE} names {path}, which cannot be read ({error.strerror}): write the database URL into it, "
            f"and chmod 600 {path}"
        ) from None
    fault = exposed(path)
    if fault:
        raise StorageError(f"{FILE_VARIABLE}: {fault}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        held = f"{len(lines)} lines" if lines else "nothing"
        raise StorageError(f"{FILE_VARIABLE}: {path} holds {held}: write one line, the database URL, into it")
    return lines[0]


def hide(url: str) -> str:
    """`url` with every password as ``***``: in ``user:password@``, in query options such as ``?password=``, and in what
    is meant as such (``;password=``, or ``host=... password=...`` as libpq has it)."""
    shown = _USER_INFO.sub(r"\g<before>:***@", url, count=1)
    if shown == url and not url.startswith("sqlite:"):
        shown = _USER_WITH_AT.sub(r"\g<before>:***@", url, count=1)
        shown = _WITHOUT_SLASHES.sub(r"\g<before>:***@", shown)
        shown = _WITHOUT_HOST.sub(r"\g<before>:***", shown)
    base, mark, query = shown.partition("?")
    base = base if url.startswith("sqlite:") else _hide_option(base)
    return base + mark + "&".join(map(_hide_option, query.split("&")))


def _hide_option(option: str) -> str:
    """All that follows a secret's key and "=": where such a value ends nobody can tell."""
    end = 0
    for part in option.split("=")[:-1]:
        end += len(part) + 1
        key = _BETWEEN.split(part.strip())[-1]
        if _SECRET_KEY.search(unquote_plus(key)) and option[end:].strip():
            return f"{option[:end]}***"
    return option


def scrub(text: str, url: str) -> str:
    """`text` (a driver's message) without the URL and the passwords that it may repeat."""
    parsed = read_url(url)
    options = [(key, value) for key, values in parsed.normalized_query.items() for value in values]
    secrets = [value for key, value in options if _SECRET_KEY.search(key) or _hide_option(value) != value]
    if parsed.password:
        secrets.append(parsed.password)
    text = text.replace(url, hide(url))
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    return text


def read_url(url: str) -> URL:
    """The parts of `url`; raises `StorageError` for anything but a SQLite file or a PostgreSQL database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(f'"{hide(url)}" is no database URL: {_FORMS}') from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        _check_server(parsed, url)
        return parsed
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StorageError(f'"{hide(url)}": {parsed.drivername} databases are not supported: {_FORMS}')
    _check_sqlite(parsed, url)
    return parsed


def _check_server(parsed: URL, url: str) -> None:
    """Refuses a password with a bare "@", the rest of which would be taken, and told, as the name of a host."""
    if "@" in f"{parsed.host or ''}{parsed.database or ''}":
        raise StorageError(
            f'"{hide(url)}" has an "@" too many: in a user or a password write %40 for "@", %3A for ":", %2F for "/" '
            'and %25 for "%"'
        )


def _check_sqlite(parsed: URL, url: str) -> None:
    if parsed.host:
        raise StorageError(f'"{hide(url)}" has two slashes before the file: write sqlite:///{parsed.host}')
    if "?" in url:
        raise StorageError(f'"{hide(url)}": a SQLite URL takes no options after a "?": write sqlite:///FILE')
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f'"{hide(url)}" names no file, and searches must outlive the process: write sqlite:///FILE')


def sqlite_path(parsed: URL) -> Path | None:
    """The absolute path of a SQLite database, None for a server."""
    if parsed.get_backend_name() != "sqlite" or parsed.database is None:
        return None
    return Path(parsed.database).expanduser().absolute()


def identity(url: str) -> str:
    """Which file stands at a SQLite `url` now, and whether it is written to; "" for a server, and where there is none.

    It changes when the file is replaced, which a connection that is open does not notice.
    """
    path = sqlite_path(read_url(url))
    try:
        found = None if path is None else os.stat(path)
    except OSError:
        found = None
    return "" if found is None else f"{found.st_dev}:{found.st_ino}:{os.path.exists(f'{path}-wal')}"


def refuse_passing_folder(url: str) -> None:
    """Raises `StorageError` in a submitted job, which runs in a folder that the cluster deletes, for a database there:
    it would be lost."""
    parsed = read_url(url)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ or parsed.get_backend_name() != "sqlite":
        return
    if not Path(parsed.database or "").is_absolute():
        raise StorageError(
            f"{url} lies in the folder of this job, which the cluster deletes with it: set {VARIABLE} on the cluster "
            f"or {FILE_VARIABLE}, or submit with --storage and a whole path (sqlite:////data/searches.db) or a "
            "PostgreSQL server"
        )
