"""Open secrets: passwords of a database in the environment of a process, where every job of a cluster reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from archsearch.storage import hide

REMEDY = (
    "take the password out of the URL there and put it into libpq's password file (PGPASSFILE or ~/.pgpass, mode "
    "0600), or put the whole URL into a file of mode 0600 that ARCHSEARCH_STORAGE_FILE names, and start Ray anew"
)
_PASSWORD = "PGPASSWORD"
_URL = re.compile(r"\s*postgres\w*(\+\w+)?:", re.IGNORECASE)


def open_secrets(environ: Mapping[str, str] | None = None) -> list[str]:
    """The variables that hold a database's password, by name: libpq's own, and every URL of a server that has one."""
    held = os.environ if environ is None else environ
    return sorted(name for name, value in held.items() if value and (name == _PASSWORD or _has_password(value)))


def _has_password(value: str) -> bool:
    return _URL.match(value) is not None and hide(value.strip()) != value.strip()


def laid_open(answer: Mapping[str, Any]) -> str:
    """Where a cluster's answer says that jobs can read a password, with the remedy; "" where nowhere."""
    named: dict[str, list[str]] = {}
    for one in (answer, *answer["nodes"]):
        if one.get("open_secrets"):
            named[str(one["host"])] = list(map(str, one["open_secrets"]))
    if not named:
        return ""
    where = "; ".join(f"{', '.join(variables)} on {host}" for host, variables in named.items())
    return f"every job can read the database's password in the environment of Ray ({where}): {REMEDY}"
