"""Store: searches, trials and measurements, written by a search and read by everything else."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from archsearch.errors import StorageError
from archsearch.storage.claims import Watch, ignore, taken
from archsearch.storage.clock import DatabaseNow, database_now
from archsearch.storage.driver import Driver
from archsearch.storage.failures import plain_data
from archsearch.storage.proposals import Proposals
from archsearch.storage.reader import check, is_id
from archsearch.storage.records import (
    OPEN_STATES,
    SEARCH_STATES,
    SPLITS,
    TRIAL_KINDS,
    TRIAL_STATES,
    MetricValue,
    NewTrial,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.rows import (
    cost_metrics,
    finite,
    measurement_values,
    metric_row,
    new_trial_row,
    trial_records,
)
from archsearch.storage.tables import MeasurementRow, Metric, Part, PluginVersion, Search, Trial

FIRST_FENCE = 1
"""The number of the driver that a search is made by; each that takes it over counts on."""


class Store(Proposals):
    """A database of searches; use it in a ``with``. Every method is one transaction and any thread may call it.

    All methods raise `StorageError` when the database cannot be read or written, or an id is not in it.
    Made by `Store.open`. Whoever has a store may write of any search; a driver writes through a `Lease`.
    """

    def create_search(
        self,
        name: str,
        spec: Mapping[str, Any],
        objectives: Sequence[Mapping[str, Any]],
        *,
        plugins: Iterable[tuple[str, str | None, str | None]] = (),
        parts: Iterable[tuple[str, str, str]] = (),
        driver: Driver | None = None,
        owner: str | None = None,
    ) -> int:
        """A new search in state running, driven by `driver`; returns its id.

        ``objectives`` hold name, direction ("minimize" or "maximize") and unit; ``plugins`` are (plugin,
        distribution, version), ``parts`` of the source (name, version, digest). Raises `StorageError` when the name
        is taken.
        """
        with self._writing() as session:
            now = database_now(session)
            if session.scalar(select(Search.id).where(Search.name == name)) is not None:
                raise self._taken(name)
            row = Search(
                name=name,
                state="running",
                reason="",
                spec=finite(spec),
                objectives=finite(list(objectives)),
                created_at=now,
                heartbeat_at=now,
                finished_at=None,
                driver=None if driver is None else driver.to_json(),
                fence=FIRST_FENCE,
                owner=owner,
            )
            session.add(row)
            try:
                session.flush()
            except IntegrityError:  # a server lets another writer in between
                raise self._taken(name) from None
            session.add_all(
                PluginVersion(search_id=row.id, plugin=plugin, distribution=distribution, version=version)
                for plugin, distribution, version in plugins
            )
            _add_parts(session, row.id, parts)
            return row.id

    def set_parts(self, search_id: int, parts: Iterable[tuple[str, str, str]]) -> None:
        """Replaces the parts of the source, (name, version, digest), that a search runs."""
        with self._writing() as session:
            self._search_row(session, search_id, lock=True)
            session.execute(delete(Part).where(Part.search_id == search_id))
            _add_parts(session, search_id, parts)

    def set_spec(self, search_id: int, spec: Mapping[str, Any]) -> None:
        """Replaces the spec of a search, which may grow while it is resumed."""
        with self._writing() as session:
            self._search_row(session, search_id, lock=True).spec = finite(spec)

    def heartbeat(self, search_id: int) -> None:
        """Says that the search's driver is alive now: the moment for who looks, the count for who watches."""
        with self._writing() as session:
            self._search_row(session, search_id)
            beat = update(Search).where(Search.id == search_id)
            session.execute(beat.values(heartbeat_at=DatabaseNow(), beats=Search.beats + 1))

    def set_search_state(self, search_id: int, state: str, reason: str = "") -> None:
        """Sets the state and its reason; any but "running" notes the end, "running" counts as a heartbeat."""
        check("search state", state, SEARCH_STATES)
        with self._writing() as session:
            _set_search_state(session, self._search_row(session, search_id), state, reason)

    def claim_search(
        self,
        search_id: int,
        *,
        driver: Driver,
        wait: bool = False,
        watch: Callable[[str], None] = ignore,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> SearchRecord:
        """Makes `driver` the search's driver: running again, with a heartbeat and a new fence; of two callers one
        gets it.

        A search whose driver is known to be dead is claimed at once. Where that cannot be told from here, one whose
        last sign is old is watched for 25 s, and with `wait` a recent one for 60 s; ``watch`` is told once what is
        waited for. Raises `StorageError`, with the remedy, while another driver is or may be alive. ``sleep`` and
        ``clock`` are for tests.
        """
        watching = Watch(look=lambda: self._look(search_id), tell=watch, sleep=sleep, clock=clock)
        seen = watching.claimable(wait=wait)
        with self._writing() as session:
            row = self._search_row(session, search_id, lock=True)
            now = self._search(session, search_id)
            if (now.state, now.beats, now.fence) != (seen.state, seen.beats, seen.fence):
                raise taken(now)
            _set_search_state(session, row, "running", "")
            row.driver = driver.to_json()
            row.fence = cast("int", Search.fence + 1)
            session.flush()
            return self._search(session, search_id)

    def _look(self, search_id: int) -> SearchRecord:
        with self._reading() as session:
            self._search_row(session, search_id)
            return self._search(session, search_id)

    def add_trial(self, search_id: int, trial: NewTrial) -> int:
        """Stores a trial, numbered next in its search; returns its id."""
        check("trial state", trial.state, TRIAL_STATES)
        check("trial kind", trial.kind, TRIAL_KINDS)
        with self._writing() as session:
            with plain_data():
                metrics = cost_metrics(trial)
                row = new_trial_row(search_id, trial, database_now(session))
            self._search_row(session, search_id, lock=True)
            last = session.scalar(select(func.max(Trial.number)).where(Trial.search_id == search_id))
            row.number = 0 if last is None else last + 1
            session.add(row)
            session.flush()
            _insert_metrics(session, row.id, metrics)
            return row.id

    def set_trial_state(
        self, trial_id: int, state: str, reason: str = "", *, metrics: Iterable[MetricValue] = ()
    ) -> None:
        """Sets the state and its reason, and notes when the trial began to run or ended.

        ``metrics`` are numbers as for `add_metrics`, stored with it or not at all.
        """
        check("trial state", state, TRIAL_STATES)
        with self._writing() as session:
            _set_trial_state(self._trial_row(session, trial_id, lock=True), state, reason, database_now(session))
            _replace_metrics(session, trial_id, list(metrics))

    def set_placement(self, trial_id: int, placement: Mapping[str, Any]) -> None:
        """Notes where a trial runs: plain data, with the host's name as ``node`` and a ``device``."""
        with self._writing() as session:
            self._trial_row(session, trial_id).placement = finite(placement)

    def lose_worker(self, trial_id: int, reason: str) -> None:
        """Sets a trial whose worker was lost to "preempted", and counts the attempt."""
        with self._writing() as session:
            row = self._trial_row(session, trial_id, lock=True)
            _set_trial_state(row, "preempted", reason, database_now(session))
            row.attempts = cast("int", Trial.attempts + 1)

    def add_measurement(
        self,
        trial_id: int,
        measurement: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, float | None]],
        *,
        task: str | None = None,
        reused_from: int | None = None,
    ) -> int:
        """Stores `Measurement.to_json()` and its metrics; returns the measurement's id.

        ``metrics`` maps "validation" and "test" to values by name ("mqar.accuracy"); ``task`` is the label under
        which the search calls its task (the measurement's own name by default). The curve is stored too, as metrics
        of the split "progress" named by label and key. A measurement that the trial has of this task and seed is
        replaced; one whose ``reused_from`` was removed meanwhile counts as the trial's own. Numbers that are not finite
        become NULL: the measurement's status and reason say why.
        """
        with self._writing() as session:
            with plain_data():
                values, numbers = measurement_values(measurement, metrics, task)
            self._trial_row(session, trial_id, lock=True)
            for table in (MeasurementRow, Metric):
                mine = (table.trial_id == trial_id, table.task == values["task"], table.seed == values["seed"])
                session.execute(delete(table).where(*mine))
            if reused_from is not None:
                source = select(Trial.id).where(Trial.id == reused_from).with_for_update(read=True, key_share=True)
                reused_from = session.scalar(source) or trial_id
            now = database_now(session)
            row = MeasurementRow(**values, trial_id=trial_id, reused_from=reused_from, created_at=now)
            session.add(row)
            session.flush()
            _insert_metrics(session, trial_id, numbers)
            return row.id

    def add_metrics(self, trial_id: int, metrics: Iterable[MetricValue]) -> None:
        """Stores numbers of a trial that no single measurement has, such as the composite "recall" of a seed.

        A number that the trial has under the same name, split, task, seed and step is replaced.
        """
        with self._writing() as session:
            self._trial_row(session, trial_id, lock=True)
            _replace_metrics(session, trial_id, list(metrics))

    def mark_orphans(self, search_id: int) -> list[TrialRecord]:
        """Sets the trials that were queued or running when the driver stopped to "preempted", and returns them."""
        open_trials = select(Trial).where(Trial.search_id == search_id, Trial.state.in_(OPEN_STATES))
        with self._writing() as session:
            self._search_row(session, search_id)
            search = self._search(session, search_id)
            beat, now = search.heartbeat_at, search.read_at
            rows = session.scalars(open_trials.order_by(Trial.number)).all()
            for row in rows:
                reason = f"the driver stopped (last seen {beat:%Y-%m-%d %H:%M:%S} UTC)"
                _set_trial_state(row, "preempted", reason, now)
            session.flush()
            return trial_records(session, Trial.id.in_([row.id for row in rows]), self._remarks)

    def _taken(self, name: str) -> StorageError:
        return StorageError(
            f'{self.url} already has a search "{name}": `archsearch resume {shlex.quote(name)}` goes on with it, or '
            "give this one another name"
        )

    def _search_row(self, session: Session, search_id: int, *, lock: bool = False) -> Search:
        locked = {"key_share": True} if lock else None  # trials may still refer to it
        row = session.get(Search, search_id, with_for_update=locked) if is_id(search_id) else None
        if row is None:
            raise StorageError(f"{self.url} has no search with the id {search_id}")
        return row


def _set_search_state(session: Session, row: Search, state: str, reason: str) -> None:
    now = database_now(session)
    row.state, row.reason = state, reason
    row.finished_at = None if state == "running" else now
    if state == "running":
        row.heartbeat_at = now
        row.beats = cast("int", Search.beats + 1)  # counted by the database, whatever stands there


def _add_parts(session: Session, search_id: int, parts: Iterable[tuple[str, str, str]]) -> None:
    session.add_all(
        Part(search_id=search_id, name=name, version=version, digest=digest) for name, version, digest in parts
    )


def _set_trial_state(row: Trial, state: str, reason: str, now: datetime) -> None:
    row.state, row.reason = state, reason
    row.finished_at = None if state in OPEN_STATES else now
    if state == "running":
        row.started_at = now


def _replace_metrics(session: Session, trial_id: int, metrics: Sequence[MetricValue]) -> None:
    for value in metrics:
        session.execute(
            delete(Metric).where(
                Metric.trial_id == trial_id,
                Metric.name == value.name,
                Metric.split == value.split,
                Metric.task.is_not_distinct_from(value.task),
                Metric.seed.is_not_distinct_from(value.seed),
                Metric.step.is_not_distinct_from(value.step),
            )
        )
    _insert_metrics(session, trial_id, metrics)


def metric_rows(trial_id: int, metrics: Iterable[MetricValue]) -> list[dict[str, Any]]:
    """The columns of metrics, whose splits are checked."""
    rows = []
    for metric in metrics:
        check("split", metric.split, SPLITS)
        rows.append(metric_row(trial_id, metric))
    return rows


def _insert_metrics(session: Session, trial_id: int, metrics: Iterable[MetricValue]) -> None:
    rows = metric_rows(trial_id, metrics)
    if rows:
        session.execute(insert(Metric), rows)
