"""Owner: whose a search is, as people who share a database see it."""

from __future__ import annotations

import getpass
import os

from archsearch.printable import printable

VARIABLE = "ARCHSEARCH_OWNER"
LONGEST = 200


def owner_here() -> str | None:
    """The name in ``ARCHSEARCH_OWNER``, else of the login; None where there is neither, as in some containers."""
    name = os.environ.get(VARIABLE, "").strip() or _login()
    return None if name is None else printable(name, lines=False)[:LONGEST]


def _login() -> str | None:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # no such user is known here
        return None
