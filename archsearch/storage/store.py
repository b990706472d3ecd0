"""Store: searches, trials and measurements, written by a search and read by everything else."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import ColumnElement, Engine, delete, func, insert, select
from sqlalchemy.orm import Session

from archsearch.errors import StorageError, listing, nearest
from archsearch.storage import frames, schema
from archsearch.storage.engine import WRITES, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.records import (
    OPEN_STATES,
    SEARCH_STATES,
    SPLITS,
    STALE_AFTER,
    TRIAL_KINDS,
    TRIAL_STATES,
    MetricValue,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.rows import curve_metrics, finite, metric_row, search_record, trial_record
from archsearch.storage.tables import MeasurementRow, Metric, PluginVersion, Search, Trial
from archsearch.storage.url import hide

if TYPE_CHECKING:
    from pandas import DataFrame


class Store:
    """A database of searches; use it in a ``with``. Every method is one transaction and any thread may call it.

    All methods raise `StorageError` when the database cannot be read or written, or an id is not in it.
    Made by `Store.open`.
    """

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine, self._url = engine, url

    @classmethod
    def open(cls, url: str, *, read_only: bool = False) -> Self:
        """Opens the database at `url`; a new SQLite file gets its tables, unless `read_only`, which makes no file.

        Raises `StorageError`, with the remedy, for an older or a newer schema too.
        """
        engine = open_engine(url, read_only=read_only)
        try:
            with storage_errors(url):
                schema.check(engine, url, read_only=read_only)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, url)

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the database is, without passwords."""
        return hide(self._url)

    def create_search(
        self, name: str, spec: Mapping[str, Any], objectives: Sequence[Mapping[str, Any]], *,
        plugins: Iterable[tuple[str, str | None, str | None]] = (),
    ) -> int:  # fmt: skip
        """A new search in state running; returns its id.

        ``objectives`` hold name, direction ("minimize" or "maximize") and unit; ``plugins`` are (plugin,
        distribution, version). Raises `StorageError` when the name is taken.
        """
        now = _now()
        with self._writing() as session:
            if session.scalar(select(Search.id).where(Search.name == name)) is not None:
                raise StorageError(
                    f'{self.url} already has a search "{name}": `archsearch resume {shlex.quote(name)}` goes on with '
                    "it, or give this one another name"
                )
            row = Search(
                name=name, state="running", reason="", spec=finite(spec), objectives=finite(list(objectives)),
                created_at=now, heartbeat_at=now, finished_at=None,
            )  # fmt: skip
            session.add(row)
            session.flush()
            session.add_all(
                PluginVersion(search_id=row.id, plugin=plugin, distribution=distribution, version=version)
                for plugin, distribution, version in plugins
            )
            return row.id

    def search(self, name: str | int) -> SearchRecord:
        """The search of that name or id; an unknown one raises `StorageError` with the nearest name."""
        with self._reading() as session:
            column = Search.id if isinstance(name, int) else Search.name
            row = session.scalars(select(Search).where(column == name)).one_or_none()
            if row is not None:
                return search_record(row)
            names = list(session.scalars(select(Search.name)))
        close = nearest(str(name), names)
        known = close or f": it has {listing(names)}"
        raise StorageError(f'{self.url} has no search "{name}"{known}')

    def searches(self) -> list[SearchRecord]:
        """All searches, the oldest first."""
        with self._reading() as session:
            return [search_record(row) for row in session.scalars(select(Search).order_by(Search.id))]

    def plugins(self, search_id: int) -> list[tuple[str, str | None, str | None]]:
        """The plugins that a search ran with: (plugin, distribution, version), sorted."""
        with self._reading() as session:
            rows = session.scalars(select(PluginVersion).where(PluginVersion.search_id == search_id))
            return sorted((row.plugin, row.distribution, row.version) for row in rows)

    def heartbeat(self, search_id: int) -> None:
        """Says that the search's driver is alive now."""
        with self._writing() as session:
            self._search_row(session, search_id).heartbeat_at = _now()

    def set_search_state(self, search_id: int, state: str, reason: str = "") -> None:
        """Sets the state and its reason; any but "running" notes the end, "running" counts as a heartbeat."""
        _check("search state", state, SEARCH_STATES)
        with self._writing() as session:
            _set_search_state(self._search_row(session, search_id), state, reason)

    def claim_search(self, search_id: int, *, stale_after: timedelta = STALE_AFTER) -> SearchRecord:
        """Makes the caller the search's driver: running again, with a heartbeat; of two callers one gets it.

        Raises `StorageError` while another driver is alive.
        """
        with self._writing() as session:
            row = self._search_row(session, search_id, lock=True)
            if search_record(row).state_now(_now(), stale_after) == "running":
                age = (_now() - row.heartbeat_at).total_seconds()
                raise StorageError(
                    f'the search "{row.name}" is running (its driver was alive {age:.0f} s ago): stop that one first, '
                    f"or wait {stale_after.total_seconds():.0f} s if it was killed"
                )
            _set_search_state(row, "running", "")
            return search_record(row)

    def add_trial(
        self, search_id: int, *, kind: str, state: str, arch: Mapping[str, Any], digest: str, pattern: str,
        params: Mapping[str, Any], seeds: Sequence[int], costs: Mapping[str, float],
        violations: Mapping[str, float], reason: str = "", parent: int | None = None,
        unexercised: Sequence[str] = (),
    ) -> int:  # fmt: skip
        """A new trial, numbered next in its search; returns its id.

        ``costs`` maps terms such as "state_bytes@32768" to values, ``violations`` the terms that exceed the budget
        to the excess, ``parent`` is the trial that a "confirm" trial confirms.
        """
        _check("trial state", state, TRIAL_STATES)
        _check("trial kind", kind, TRIAL_KINDS)
        now = _now()
        with self._writing() as session:
            self._search_row(session, search_id, lock=True)
            last = session.scalar(select(func.max(Trial.number)).where(Trial.search_id == search_id))
            row = Trial(
                search_id=search_id, number=0 if last is None else last + 1, kind=kind, state=state, reason=reason,
                arch=finite(arch), digest=digest, pattern=pattern, params=finite(params), seeds=list(seeds),
                violations=finite(violations), unexercised=list(unexercised), parent_id=parent, created_at=now,
                started_at=now if state == "running" else None,
                finished_at=None if state in OPEN_STATES else now,
            )  # fmt: skip
            session.add(row)
            session.flush()
            metrics = [MetricValue(name=name, split="cost", value=value) for name, value in costs.items()]
            _insert_metrics(session, row.id, metrics)
            return row.id

    def set_trial_state(self, trial_id: int, state: str, reason: str = "") -> None:
        """Sets the state and its reason, and notes when the trial began to run or ended."""
        _check("trial state", state, TRIAL_STATES)
        with self._writing() as session:
            _set_trial_state(self._trial_row(session, trial_id), state, reason)

    def add_measurement(
        self, trial_id: int, measurement: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float | None]], *,
        task: str | None = None, reused_from: int | None = None,
    ) -> int:  # fmt: skip
        """Stores `Measurement.to_json()` and its metrics; returns the measurement's id.

        ``metrics`` maps "validation" and "test" to values by name ("mqar.accuracy"); ``task`` is the label under
        which the search calls its task (the measurement's own name by default). The curve is stored too, as metrics
        of the split "progress" named by label and key. A measurement that the trial has of this task and seed is
        replaced. Numbers that are not finite become NULL: the measurement's status and reason say why. A layer
        that is unexercised in the measurement is so in the trial.
        """
        label, seed = task or str(measurement["task"]), int(measurement["seed"])
        values = [
            MetricValue(name=name, split=split, value=value, task=label, seed=seed)
            for split, named in metrics.items()
            for name, value in named.items()
        ] + curve_metrics(measurement.get("curve", ()), label, seed)
        with self._writing() as session:
            trial = self._trial_row(session, trial_id)
            for table in (MeasurementRow, Metric):
                session.execute(
                    delete(table).where(table.trial_id == trial_id, table.task == label, table.seed == seed)
                )
            row = MeasurementRow(
                trial_id=trial_id, key=measurement["key"], task=label, seed=seed, status=measurement["status"],
                payload=finite(measurement), reused_from=reused_from, created_at=_now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            _insert_metrics(session, trial_id, values)
            unexercised = [f"{layer} by {label}" for layer in measurement.get("unexercised", ())]
            trial.unexercised = list(dict.fromkeys([*trial.unexercised, *unexercised]))
            return row.id

    def add_metrics(self, trial_id: int, metrics: Iterable[MetricValue]) -> None:
        """Stores numbers of a trial that no single measurement has, such as the composite "recall" of a seed.

        A number that the trial has under the same name, split, task, seed and step is replaced.
        """
        values = list(metrics)
        with self._writing() as session:
            self._trial_row(session, trial_id)
            for value in values:
                session.execute(
                    delete(Metric).where(
                        Metric.trial_id == trial_id, Metric.name == value.name, Metric.split == value.split,
                        Metric.task.is_not_distinct_from(value.task), Metric.seed.is_not_distinct_from(value.seed),
                        Metric.step.is_not_distinct_from(value.step),
                    )
                )  # fmt: skip
            _insert_metrics(session, trial_id, values)

    def find_measurement(self, key: str) -> tuple[int, dict[str, Any]] | None:
        """The trial that first gave a measurement of `key`, and its payload; None when nobody did."""
        query = (
            select(MeasurementRow)
            .where(MeasurementRow.key == key, MeasurementRow.status.in_(("complete", "diverged")))
            .order_by(MeasurementRow.id)
            .limit(1)
        )
        with self._reading() as session:
            row = session.scalars(query).one_or_none()
            return None if row is None else (row.reused_from or row.trial_id, row.payload)

    def trials(
        self, search_id: int, *, states: Collection[str] | None = None, kinds: Collection[str] | None = None
    ) -> list[TrialRecord]:  # fmt: skip
        """The trials of a search by number, without their measurements; `states` and `kinds` choose among them."""
        query = select(Trial).where(Trial.search_id == search_id).order_by(Trial.number)
        if states is not None:
            query = query.where(Trial.state.in_(states))
        if kinds is not None:
            query = query.where(Trial.kind.in_(kinds))
        with self._reading() as session:
            costs = _costs(session, Trial.search_id == search_id)
            return [trial_record(row, costs.get(row.id, {})) for row in session.scalars(query)]

    def trial(self, trial_id: int) -> TrialRecord:
        """One trial, with its measurements by task and seed."""
        query = select(MeasurementRow).where(MeasurementRow.trial_id == trial_id)
        with self._reading() as session:
            row = self._trial_row(session, trial_id)
            costs = _costs(session, Trial.id == trial_id).get(trial_id, {})
            measurements = session.scalars(query.order_by(MeasurementRow.task, MeasurementRow.seed))
            return trial_record(row, costs, measurements)

    def mark_orphans(self, search_id: int) -> list[TrialRecord]:
        """Sets the trials that were queued or running when the driver stopped to "preempted", and returns them."""
        open_trials = select(Trial).where(Trial.search_id == search_id, Trial.state.in_(OPEN_STATES))
        with self._writing() as session:
            beat = self._search_row(session, search_id).heartbeat_at
            rows = session.scalars(open_trials.order_by(Trial.number)).all()
            for row in rows:
                _set_trial_state(row, "preempted", f"the driver stopped (last seen {beat:%Y-%m-%d %H:%M:%S} UTC)")
            costs = _costs(session, Trial.search_id == search_id)
            return [trial_record(row, costs.get(row.id, {})) for row in rows]

    def searches_frame(self) -> DataFrame:
        """All searches as a frame; the columns are those of `frames.SEARCH_COLUMNS`."""
        with self._reading() as session:
            return frames.searches_frame(session, _now())

    def trials_frame(self, name: str) -> DataFrame:
        """The trials of a search as a frame; the columns are those of `frames.TRIAL_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.trials_frame(session, search_id)

    def metrics_frame(self, name: str, split: str | Collection[str] | None = None) -> DataFrame:
        """The metrics of a search in long form, of one split, some or all; columns as in `frames.METRIC_COLUMNS`."""
        splits = [split] if isinstance(split, str) else split
        for known in splits or ():
            _check("split", known, SPLITS)
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.metrics_frame(session, search_id, splits)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        engine = self._engine.execution_options(**{WRITES: True})
        with storage_errors(self._url), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with storage_errors(self._url), Session(self._engine) as session:
            yield session

    def _search_row(self, session: Session, search_id: int, *, lock: bool = False) -> Search:
        row = session.get(Search, search_id, with_for_update=lock or None)
        if row is None:
            raise StorageError(f"{self.url} has no search with the id {search_id}")
        return row

    def _trial_row(self, session: Session, trial_id: int) -> Trial:
        row = session.get(Trial, trial_id)
        if row is None:
            raise StorageError(f"{self.url} has no trial {trial_id}: `archsearch trials NAME` lists them")
        return row


def _now() -> datetime:
    return datetime.now(UTC)


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise StorageError(f'"{value}" is no {what}{nearest(value, known)}: it is one of {listing(known)}')


def _set_search_state(row: Search, state: str, reason: str) -> None:
    now = _now()
    row.state, row.reason = state, reason
    row.finished_at = None if state == "running" else now
    if state == "running":
        row.heartbeat_at = now


def _set_trial_state(row: Trial, state: str, reason: str) -> None:
    now = _now()
    row.state, row.reason = state, reason
    row.finished_at = None if state in OPEN_STATES else now
    if state == "running":
        row.started_at = now


def _insert_metrics(session: Session, trial_id: int, metrics: Iterable[MetricValue]) -> None:
    rows = []
    for metric in metrics:
        _check("split", metric.split, SPLITS)
        rows.append(metric_row(trial_id, metric))
    if rows:
        session.execute(insert(Metric), rows)


def _costs(session: Session, where: ColumnElement[bool]) -> dict[int, dict[str, float]]:
    query = select(Metric.trial_id, Metric.name, Metric.value).join(Trial, Trial.id == Metric.trial_id)
    costs: dict[int, dict[str, float]] = {}
    for trial_id, name, value in session.execute(query.where(where, Metric.split == "cost")):
        costs.setdefault(trial_id, {})[name] = math.nan if value is None else value
    return costs
