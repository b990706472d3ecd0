"""Remarks: rows that a reader left out or mended, each told once."""

from __future__ import annotations

import logging
import threading

MOST = 1000
"""Remarks that are kept; a database that is damaged throughout must not fill the memory."""

_LOG = logging.getLogger("archsearch.storage")
_logged: set[tuple[str, str, int, str]] = set()
_lock = threading.Lock()


class Remarks:
    """What a reader of the database at ``url`` (without passwords) has to remark; any thread may add to it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: dict[tuple[str, int, str], str] = {}
        self._more = 0

    def add(self, table: str, row: int, column: str, text: str) -> None:
        """Keeps what is to be said of a column of a row, and logs it if this process has not yet."""
        key = (table, row, column)
        with _lock:
            if key in self._found:
                return
            if len(self._found) >= MOST:
                self._more += 1
                return
            self._found[key] = f"{table} {row}: {text}"
            known = (self._url, *key) in _logged
            _logged.add((self._url, *key))
        if not known:
            _LOG.warning("%s: %s", self._url, self._found[key])

    def about(self, table: str, row: int) -> str:
        """What was said of a row, for an error that names it."""
        with _lock:
            found = [text for (of, number, _), text in self._found.items() if (of, number) == (table, row)]
        return "; ".join(found) or f"{table} {row} cannot be read"

    def list(self) -> list[str]:
        """All of them, in the order in which they were found."""
        with _lock:
            found, more = list(self._found.values()), self._more
        return [*found, f"{more:,} more values could not be read"] if more else found
