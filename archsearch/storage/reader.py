"""Reader: what a store tells of searches and trials; every method is one transaction that writes nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import ColumnElement, Engine, and_, func, select
from sqlalchemy.orm import Session

from archsearch.errors import StorageError, listing, nearest
from archsearch.storage import candidates, frames, schema
from archsearch.storage.engine import for_reading, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.records import SPLITS, SearchRecord, TrialRecord
from archsearch.storage.rows import search_record, trial_record
from archsearch.storage.samples import Sample, sample
from archsearch.storage.tables import MOST_ROWS, MeasurementRow, Metric, Part, PluginVersion, Search, Trial
from archsearch.storage.trial_pages import TrialPage, TrialQuery, trial_page
from archsearch.storage.url import hide

if TYPE_CHECKING:
    from pandas import DataFrame


class Reader:
    """The half of `Store` that reads."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine, self._reads, self._url = engine, for_reading(engine), url

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, create: bool = True) -> Self:
        """Opens the database at `url`; a new SQLite file gets its tables.

        With `read_only`, and without `create`, no file is made: where there is none, and for an older or a newer
        schema too, `StorageError` is raised with the remedy.
        """
        engine = open_engine(url, read_only=read_only, create=create)
        try:
            with storage_errors(url):
                schema.check(engine, url, make=create and not read_only)
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

    def search(self, name: str | int) -> SearchRecord:
        """The search of that name or id; an unknown one raises `StorageError` with the nearest name."""
        with self._reading() as session:
            column = Search.id if isinstance(name, int) else Search.name
            known = not isinstance(name, int) or name <= MOST_ROWS
            row = session.scalars(select(Search).where(column == name)).one_or_none() if known else None
            if row is not None:
                return search_record(row)
            names = list(session.scalars(select(Search.name)))
        close = nearest(str(name), names)
        raise StorageError(f'{self.url} has no search "{name}"' + (close or f": it has {listing(names)}"))

    def searches(self) -> list[SearchRecord]:
        """All searches, the oldest first."""
        with self._reading() as session:
            return [search_record(row) for row in session.scalars(select(Search).order_by(Search.id))]

    def plugins(self, search_id: int) -> list[tuple[str, str | None, str | None]]:
        """The plugins that a search ran with: (plugin, distribution, version), sorted."""
        with self._reading() as session:
            rows = session.scalars(select(PluginVersion).where(PluginVersion.search_id == search_id))
            return sorted((row.plugin, row.distribution, row.version) for row in rows)

    def parts(self, search_id: int) -> dict[str, tuple[str, str]]:
        """The parts of the source that a search ran: name -> (version, digest)."""
        with self._reading() as session:
            rows = session.scalars(select(Part).where(Part.search_id == search_id).order_by(Part.name))
            return {row.name: (row.version, row.digest) for row in rows}

    def last_parts(self) -> dict[str, tuple[str, str, str]]:
        """Every part that a search ever ran, as its newest search ran it: name -> (version, digest, search)."""
        query = (
            select(Part.name, Part.version, Part.digest, Search.name)
            .join(Search, Search.id == Part.search_id)
            .order_by(Part.name, Search.id)
        )
        with self._reading() as session:
            return {part: (version, digest, search) for part, version, digest, search in session.execute(query)}

    def find_measurement(self, key: str) -> tuple[int, dict[str, Any]] | None:
        """The trial that first gave a measurement of `key`, and its payload; None when nobody did.

        What a superseded trial gave counts for nothing.
        """
        superseded = select(Trial.id).where(Trial.state == "superseded")
        trained_in = func.coalesce(MeasurementRow.reused_from, MeasurementRow.trial_id)
        query = (
            select(MeasurementRow)
            .where(MeasurementRow.key == key, MeasurementRow.status.in_(("complete", "diverged")))
            .where(MeasurementRow.trial_id.not_in(superseded), trained_in.not_in(superseded))
            .order_by(MeasurementRow.id)
            .limit(1)
        )
        with self._reading() as session:
            row = session.scalars(query).one_or_none()
            return None if row is None else (row.reused_from or row.trial_id, row.payload)

    def trials(
        self, search_id: int, *, states: Collection[str] | None = None, kinds: Collection[str] | None = None,
        digest: str | None = None,
    ) -> list[TrialRecord]:  # fmt: skip
        """The trials of a search by number, without their measurements; the rest chooses among them."""
        where = [Trial.search_id == search_id]
        if states is not None:
            where.append(Trial.state.in_(states))
        if kinds is not None:
            where.append(Trial.kind.in_(kinds))
        if digest is not None:
            where.append(Trial.digest == digest)
        with self._reading() as session:
            costs = costs_of(session, and_(*where))
            rows = session.scalars(select(Trial).where(*where).order_by(Trial.number))
            return [trial_record(row, costs.get(row.id, {})) for row in rows]

    def trial(self, trial_id: int) -> TrialRecord:
        """One trial, with its measurements by task and seed."""
        query = select(MeasurementRow).where(MeasurementRow.trial_id == trial_id)
        with self._reading() as session:
            row = self._trial_row(session, trial_id)
            costs = costs_of(session, Trial.id == trial_id).get(trial_id, {})
            measurements = session.scalars(query.order_by(MeasurementRow.task, MeasurementRow.seed))
            return trial_record(row, costs, measurements)

    def searches_frame(self) -> DataFrame:
        """All searches as a frame; the columns are those of `frames.SEARCH_COLUMNS`."""
        with self._reading() as session:
            return frames.searches_frame(session, utc_now())

    def trials_frame(self, name: str) -> DataFrame:
        """The trials of a search as a frame; the columns are those of `frames.TRIAL_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.trials_frame(session, search_id)

    def sample(self, name: str, candidates: int) -> Sample:
        """At most `candidates` complete candidates of a search, with all their trials, as `samples.sample` draws."""
        search_id = self.search(name).id
        with self._reading() as session:
            return sample(session, search_id, candidates)

    def metrics_frame(self, name: str, split: str | Collection[str] | None = None) -> DataFrame:
        """The metrics of a search in long form, of one split, some or all; columns as in `frames.METRIC_COLUMNS`."""
        splits = [split] if isinstance(split, str) else split
        for known in splits or ():
            check("split", known, SPLITS)
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.metrics_frame(session, search_id, splits)

    def revision(self, search_id: int) -> str:
        """A text that is another one when the search has changed: what was computed of it is then out of date."""
        with self._reading() as session:
            return candidates.revision(session, search_id)

    def candidates_frame(self, name: str) -> DataFrame:
        """What a front needs of the trials of a search; the columns are those of `candidates.CANDIDATE_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return candidates.candidates_frame(session, search_id)

    def values_frame(self, name: str, metrics: Collection[str], splits: Collection[str]) -> DataFrame:
        """Some metrics of a search, curves left out; the columns are those of `candidates.VALUE_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return candidates.values_frame(session, search_id, metrics, splits)

    def trial_page(
        self, name: str, query: TrialQuery, *, metrics: Sequence[str] = (), split: str = "validation"
    ) -> TrialPage:  # fmt: skip
        """The trials of a search that `query` chooses, with the mean over seeds of `metrics` on `split`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return trial_page(session, search_id, query, metrics, split)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with storage_errors(self._url), Session(self._reads) as session:
            yield session

    def _trial_row(self, session: Session, trial_id: int, *, lock: bool = False) -> Trial:
        locked = {"key_share": True} if lock else None  # others may still refer to it
        row = session.get(Trial, trial_id, with_for_update=locked) if trial_id <= MOST_ROWS else None
        if row is None:
            raise StorageError(f"{self.url} has no trial {trial_id}: `archsearch trials NAME` lists them")
        return row


def utc_now() -> datetime:
    """The time, UTC-aware."""
    return datetime.now(UTC)


def check(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses a value that is not known, with the nearest that is."""
    if value not in known:
        raise StorageError(f'"{value}" is no {what}{nearest(value, known)}: it is one of {listing(known)}')


def costs_of(session: Session, where: ColumnElement[bool]) -> dict[int, dict[str, float]]:
    """The costs of the trials that `where` chooses, by trial and term."""
    query = select(Metric.trial_id, Metric.name, Metric.value).join(Trial, Trial.id == Metric.trial_id)
    costs: dict[int, dict[str, float]] = {}
    for trial_id, name, value in session.execute(query.where(where, Metric.split == "cost")):
        costs.setdefault(trial_id, {})[name] = math.nan if value is None else value
    return costs
