"""Writer: how what is written to a store becomes one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from archsearch.storage.engine import WRITES
from archsearch.storage.failures import storage_errors
from archsearch.storage.reader import Reader


class Writer(Reader):
    """A reader that also writes."""

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        engine = self._engine.execution_options(**{WRITES: True})
        with storage_errors(self._url), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
