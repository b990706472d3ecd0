"""Lease: a driver writes of its search until another takes the search over, and the database says when that is so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import TextClause, select
from sqlalchemy.orm import Session

from archsearch.errors import StorageError
from archsearch.storage import at_once
from archsearch.storage.claims import taken_over
from archsearch.storage.failures import plain_data, storage_errors
from archsearch.storage.reader import check, is_id
from archsearch.storage.records import OPEN_STATES, TRIAL_KINDS, TRIAL_STATES, MetricValue, NewTrial
from archsearch.storage.rows import cost_metrics, measurement_values, trial_values
from archsearch.storage.store import FIRST_FENCE, Store, metric_rows
from archsearch.storage.tables import Search, Trial


class Lease(Store):
    """A store through which the driver of one search writes, and of no other search.

    Every transaction first asks for the search as it was taken up and keeps its row until the end, so that a driver
    that was paused while another claimed the search changes nothing: `TakenOverError`. On a server what is written of
    every trial goes `at_once`. Its store is who closes it.
    """

    def __init__(self, store: Store, search_id: int, fence: int = FIRST_FENCE) -> None:
        """``fence`` is what `Store.claim_search` gave the driver; who made the search has the first."""
        super().__init__(store._engine, store._url)
        self._remarks, self.search_id, self.fence = store._remarks, search_id, fence
        on_server = self._engine.dialect.name == "postgresql"
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT") if on_server else None

    def close(self) -> None:
        """Does nothing: the store that it is of closes the connections."""

    def heartbeat(self, search_id: int) -> None:
        """As `Store.heartbeat`."""
        if search_id != self.search_id or self._at_once(at_once.HEARTBEAT, {}) is None:
            super().heartbeat(search_id)

    def add_trial(self, search_id: int, trial: NewTrial) -> int:
        """As `Store.add_trial`."""
        made = None
        if search_id == self.search_id and self._single is not None:
            check("trial state", trial.state, TRIAL_STATES)
            check("trial kind", trial.kind, TRIAL_KINDS)
            with storage_errors(self._url), plain_data():
                values = trial_values(trial)
                values |= {"parent": values.pop("parent_id"), "metrics": _numbers(cost_metrics(trial))}
            made = self._at_once(at_once.ADD_TRIAL, values | _moments(trial.state))
        return super().add_trial(search_id, trial) if made is None else made

    def set_trial_state(
        self, trial_id: int, state: str, reason: str = "", *, metrics: Iterable[MetricValue] = ()
    ) -> None:
        """As `Store.set_trial_state`."""
        numbers, done = list(metrics), None
        if is_id(trial_id) and self._single is not None:
            check("trial state", state, TRIAL_STATES)
            values = {"trial": trial_id, "state": state, "reason": reason, **_moments(state)}
            if numbers:
                with storage_errors(self._url):
                    values["metrics"] = _numbers(numbers)
            done = self._at_once(at_once.END_WITH_METRICS if numbers else at_once.SET_STATE, values)
        if done is None:
            super().set_trial_state(trial_id, state, reason, metrics=numbers)

    def add_measurement(
        self,
        trial_id: int,
        measurement: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, float | None]],
        *,
        task: str | None = None,
        reused_from: int | None = None,
    ) -> int:
        """As `Store.add_measurement`."""
        made = None
        if is_id(trial_id) and self._single is not None:
            with storage_errors(self._url), plain_data():
                values, numbers = measurement_values(measurement, metrics, task)
                values |= {"trial": trial_id, "reused_from": reused_from, "metrics": _numbers(numbers)}
            made = self._at_once(at_once.ADD_MEASUREMENT, values)
        if made is not None:
            return made
        return super().add_measurement(trial_id, measurement, metrics, task=task, reused_from=reused_from)

    def _at_once(self, statement: TextClause, values: Mapping[str, Any]) -> int | None:
        """The id that a statement of `at_once` answers with; None where it wrote nothing, and for a file."""
        if self._single is None:
            return None
        with storage_errors(self._url), self._single.connect() as connection:
            held = {"search": self.search_id, "fence": self.fence, **values}
            found: int | None = connection.execute(statement, held).scalar()
            return found

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with super()._writing() as session:
            held = select(Search.id).where(Search.id == self.search_id, Search.fence == self.fence)
            if session.scalar(held.with_for_update(key_share=True)) is None:
                raise taken_over(self._search(session, super()._search_row(session, self.search_id).id))
            yield session

    def _search_row(self, session: Session, search_id: int, *, lock: bool = False) -> Search:
        if search_id != self.search_id:
            raise self._foreign(f"search {search_id}")
        return super()._search_row(session, search_id, lock=lock)

    def _trial_row(self, session: Session, trial_id: int, *, lock: bool = False) -> Trial:
        row = super()._trial_row(session, trial_id, lock=lock)
        if lock and row.search_id != self.search_id:
            raise self._foreign(f"trial {trial_id}")
        return row

    def _foreign(self, what: str) -> StorageError:
        return StorageError(f"{self.url}: {what} is not of search {self.search_id}, and its driver writes of no other")


def _moments(state: str) -> dict[str, bool]:
    """What a state says of the moments of a trial."""
    return {"running": state == "running", "open": state in OPEN_STATES}


def _numbers(metrics: Iterable[MetricValue]) -> list[dict[str, Any]]:
    return at_once.metrics_json(metric_rows(0, metrics))
