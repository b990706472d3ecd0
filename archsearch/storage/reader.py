"""Reader: what a store tells of searches and trials; every method is one transaction that writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from sqlalchemy import Engine, and_, func, select, true
from sqlalchemy.orm import Session

from archsearch.errors import StorageError, listing, nearest
from archsearch.storage import candidates, frames, schema
from archsearch.storage.columns import MEASUREMENT, PART, PLUGIN, SEARCH
from archsearch.storage.engine import for_reading, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.kinds import is_measurement
from archsearch.storage.records import SPLITS, SearchRecord, TrialRecord
from archsearch.storage.remarks import Remarks
from archsearch.storage.rows import measurement_records, read_columns, search_records, trial_records, unfinished
from archsearch.storage.samples import Sample, archs, sample
from archsearch.storage.tables import MOST_ROWS, MeasurementRow, Part, PluginVersion, Search, Trial
from archsearch.storage.trial_pages import TrialPage, TrialQuery, trial_page
from archsearch.storage.url import hide

if TYPE_CHECKING:
    from pandas import DataFrame


class Reader:
    """The half of `Store` that reads."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine, self._reads, self._url = engine, for_reading(engine), url
        self._remarks = Remarks(hide(url))

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
            if not isinstance(name, int):
                row = session.scalar(select(Search.id).where(Search.name == name))
            else:
                row = session.scalar(select(Search.id).where(Search.id == name)) if is_id(name) else None
            if row is not None:
                return self._search(session, row)
            names = [found[:200] for found in session.scalars(select(Search.name)) if isinstance(found, str)]
        close = nearest(str(name), names)
        raise StorageError(f'{self.url} has no search "{name}"' + (close or f": it has {listing(names)}"))

    def searches(self) -> list[SearchRecord]:
        """All searches, the oldest first."""
        with self._reading() as session:
            return search_records(session, true(), self._remarks)

    def remarks(self) -> list[str]:
        """Rows that were left out or mended so far, as they held what no row may: a sentence for each value."""
        return self._remarks.list()

    def plugins(self, search_id: int) -> list[tuple[str, str | None, str | None]]:
        """The plugins that a search ran with: (plugin, distribution, version), sorted."""
        with self._reading() as session:
            query = select(*(getattr(PluginVersion, name) for name in PLUGIN))
            rows = query.where(PluginVersion.search_id == search_id)
            found = read_columns(session, rows, "plugin_version", PLUGIN, self._remarks)
            names = zip(found["plugin"], found["distribution"], found["version"], strict=True)
            return sorted(names, key=lambda row: tuple(name or "" for name in row))

    def parts(self, search_id: int) -> dict[str, tuple[str, str]]:
        """The parts of the source that a search ran: name -> (version, digest)."""
        with self._reading() as session:
            rows = select(*(getattr(Part, name) for name in PART)).where(Part.search_id == search_id)
            found = read_columns(session, rows.order_by(Part.name), "part", PART, self._remarks)
        versions = zip(found["version"], found["digest"], strict=True)
        return dict(zip(found["name"], versions, strict=True))

    def last_parts(self) -> dict[str, tuple[str, str, str]]:
        """Every part that a search ever ran, as its newest search ran it: name -> (version, digest, search)."""
        columns = {**PART, "search": SEARCH["name"]}
        rows = select(Part.id, Part.name, Part.version, Part.digest, Search.name)
        query = rows.join(Search, Search.id == Part.search_id).order_by(Part.name, Search.id)
        with self._reading() as session:
            found = read_columns(session, query, "part", columns, self._remarks)
        versions = zip(found["version"], found["digest"], found["search"], strict=True)
        return dict(zip(found["name"], versions, strict=True))

    def find_measurement(self, key: str) -> tuple[int, dict[str, Any]] | None:
        """The trial that first gave a measurement of `key`, and its payload; None when nobody did.

        What a superseded trial gave counts for nothing.
        """
        superseded = select(Trial.id).where(Trial.state == "superseded")
        trained_in = func.coalesce(MeasurementRow.reused_from, MeasurementRow.trial_id)
        query = (
            select(MeasurementRow.id, MeasurementRow.seed, MeasurementRow.payload, MeasurementRow.status, trained_in)
            .where(MeasurementRow.key == key, MeasurementRow.status.in_(("complete", "diverged")))
            .where(MeasurementRow.trial_id.not_in(superseded), trained_in.not_in(superseded))
            .order_by(MeasurementRow.id)
        )
        columns = {name: MEASUREMENT[name] for name in ("id", "seed", "payload", "status", "trial_id")}
        with self._reading() as session:
            found = read_columns(session, query, "measurement", columns, self._remarks)
        for _, seed, payload, status, trial in zip(*found.values(), strict=True):
            if is_measurement(payload, key=key, seed=seed, status=status):
                return trial, payload
        return None

    def trials(
        self,
        search_id: int,
        *,
        states: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        digest: str | None = None,
    ) -> list[TrialRecord]:
        """The trials of a search by number, without their measurements; the rest chooses among them."""
        where = [Trial.search_id == search_id]
        if states is not None:
            where.append(Trial.state.in_(states))
        if kinds is not None:
            where.append(Trial.kind.in_(kinds))
        if digest is not None:
            where.append(Trial.digest == digest)
        with self._reading() as session:
            return trial_records(session, and_(*where), self._remarks)

    def trial_counts(self, search_id: int) -> dict[str, int]:
        """How many trials of a search are in each state that any is in."""
        query = select(Trial.state, func.count()).where(Trial.search_id == search_id).group_by(Trial.state)
        with self._reading() as session:
            return {str(state): count for state, count in session.execute(query)}

    def trial(self, trial_id: int) -> TrialRecord:
        """One trial, with its measurements by task and seed, and of a pruned one the curve that was cut short."""
        with self._reading() as session:
            self._trial_row(session, trial_id)
            found = trial_records(session, Trial.id == trial_id, self._remarks)
            if not found:
                raise self._unreadable("trial", trial_id)
            measured = measurement_records(session, trial_id, self._remarks)
            begun = unfinished(session, trial_id, measured, self._remarks) if found[0].state == "pruned" else ()
            return replace(found[0], measurements=measured, unfinished=begun)

    def searches_frame(self) -> DataFrame:
        """All searches as a frame; the columns are those of `frames.SEARCH_COLUMNS`."""
        with self._reading() as session:
            return frames.searches_frame(session, self._remarks)

    def trials_frame(self, name: str) -> DataFrame:
        """The trials of a search as a frame; the columns are those of `frames.TRIAL_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.trials_frame(session, search_id, self._remarks)

    def sample(self, name: str, candidates: int) -> Sample:
        """At most `candidates` complete candidates of a search, with all their trials, as `samples.sample` draws."""
        search_id = self.search(name).id
        with self._reading() as session:
            return sample(session, search_id, candidates, self._remarks)

    def archs(self, trials: Collection[int]) -> dict[int, Mapping[str, Any]]:
        """The architectures of some trials by their ids, in one query; one that cannot be read is left out."""
        with self._reading() as session:
            return archs(session, trials, self._remarks)

    def metrics_frame(self, name: str, split: str | Collection[str] | None = None) -> DataFrame:
        """The metrics of a search in long form, of one split, some or all; columns as in `frames.METRIC_COLUMNS`."""
        splits = [split] if isinstance(split, str) else split
        for known in splits or ():
            check("split", known, SPLITS)
        search_id = self.search(name).id
        with self._reading() as session:
            return frames.metrics_frame(session, search_id, splits, self._remarks)

    def revision(self, search_id: int) -> str:
        """A text that is another one when the search has changed: what was computed of it is then out of date."""
        with self._reading() as session:
            return candidates.revision(session, search_id)

    def candidates_frame(self, name: str) -> DataFrame:
        """What a front needs of the trials of a search; the columns are those of `candidates.CANDIDATE_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return candidates.candidates_frame(session, search_id, self._remarks)

    def values_frame(self, name: str, metrics: Collection[str], splits: Collection[str]) -> DataFrame:
        """Some metrics of a search, curves left out; the columns are those of `candidates.VALUE_COLUMNS`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return candidates.values_frame(session, search_id, metrics, splits, self._remarks)

    def trial_page(
        self, name: str, query: TrialQuery, *, metrics: Sequence[str] = (), split: str = "validation"
    ) -> TrialPage:
        """The trials of a search that `query` chooses, with the mean over seeds of `metrics` on `split`."""
        search_id = self.search(name).id
        with self._reading() as session:
            return trial_page(session, search_id, query, metrics, split, self._remarks)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with storage_errors(self._url), Session(self._reads) as session:
            yield session

    def _search(self, session: Session, search_id: int) -> SearchRecord:
        found = search_records(session, Search.id == search_id, self._remarks)
        if not found:
            raise self._unreadable("search", search_id)
        return found[0]

    def _unreadable(self, table: str, row: int) -> StorageError:
        return StorageError(f"{self.url}: {self._remarks.about(table, row)}: put this right in the database, or delete")

    def _trial_row(self, session: Session, trial_id: int, *, lock: bool = False) -> Trial:
        locked = {"key_share": True} if lock else None  # others may still refer to it
        row = session.get(Trial, trial_id, with_for_update=locked) if is_id(trial_id) else None
        if row is None:
            raise StorageError(f"{self.url} has no trial {trial_id}: `archsearch trials NAME` lists them")
        return row


def is_id(number: object) -> bool:
    """Whether a row may have this id; a database refuses to look for a number that is too great for it."""
    return isinstance(number, SupportsIndex) and 0 <= index(number) <= MOST_ROWS


def check(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses a value that is not known, with the nearest that is."""
    if value not in known:
        raise StorageError(f'"{value}" is no {what}{nearest(str(value), known)}: it is one of {listing(known)}')
