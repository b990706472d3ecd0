"""Jobs: the rows of searches that were submitted to a cluster, each written before the cluster is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, true, update
from sqlalchemy.exc import IntegrityError

from archsearch.storage.clock import database_now
from archsearch.storage.columns import JOB
from archsearch.storage.rows import finite, read_columns
from archsearch.storage.tables import JobRow
from archsearch.storage.writer import Writer

PREPARING = "preparing"
"""The state of a job that the cluster has not confirmed yet."""
LOST = "lost"
"""The state of a job that the cluster had, and knows no more."""
ENDED = ("succeeded", "failed", "stopped", LOST)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What is known of a job before it is sent: ``name`` is its id on the cluster, ``key`` the same for the same
    submission, ``plugins`` what travels with it."""

    name: str
    key: str
    search: str
    address: str
    owner: str | None
    spec: Mapping[str, Any]
    plugins: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class JobRecord(NewJob):
    """A job as it was last heard of; the moments are UTC-aware."""

    state: str
    reason: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether it runs no more, as far as is known."""
        return self.state in ENDED


class Jobs(Writer):
    """The jobs of a database. Every method is one transaction, and raises `StorageError` where that cannot be."""

    def begin(self, job: NewJob) -> tuple[JobRecord, bool]:
        """The job of that key, and whether it is new; a new one is preparing. Of two callers one makes it."""
        row = JobRow(
            name=job.name,
            key=job.key,
            search=job.search,
            address=job.address,
            owner=job.owner,
            state=PREPARING,
            spec=finite(job.spec),
            plugins=finite(list(job.plugins)),
            finished_at=None,
        )
        made = self._added(row)
        found = self.with_key(job.key) or self.named(job.name)
        assert found is not None, "a job that is refused as a double is there"
        return found, made

    def _added(self, row: JobRow) -> bool:
        with self._writing() as session:
            taken = select(JobRow.id).where((JobRow.key == row.key) | (JobRow.name == row.name))
            if session.scalar(taken) is not None:
                return False
            row.created_at = row.updated_at = database_now(session)
            session.add(row)
            try:
                session.flush()
            except IntegrityError:  # a server lets another writer in between
                session.rollback()
                return False
            return True

    def note(self, name: str, state: str, reason: str = "") -> None:
        """What was heard of a job; an end is noted with its moment."""
        with self._writing() as session:
            now = database_now(session)
            heard = {"state": state, "reason": reason, "updated_at": now}
            session.execute(
                update(JobRow)
                .where(JobRow.name == name, JobRow.state != state)
                .values(**heard, finished_at=now if state in ENDED else None)
            )

    def release(self, record: JobRecord) -> None:
        """Gives the key of a job that has ended free for another submission of the same."""
        with self._writing() as session:
            chosen = update(JobRow).where(JobRow.name == record.name, JobRow.key == record.key)
            session.execute(chosen.values(key=f"{record.name} {record.key}"[:128]))

    def with_key(self, key: str) -> JobRecord | None:
        """The job of that key."""
        return next(iter(self._records(JobRow.key == key)), None)

    def named(self, name: str) -> JobRecord | None:
        """The job of that name."""
        return next(iter(self._records(JobRow.name == name)), None)

    def all(self, address: str | None = None) -> list[JobRecord]:
        """The jobs that were submitted to `address`, or anywhere, the newest first."""
        return self._records(true() if address is None else JobRow.address == address)

    def _records(self, where: ColumnElement[bool]) -> list[JobRecord]:
        query = select(*(getattr(JobRow, name) for name in JOB)).where(where).order_by(JobRow.id.desc())
        with self._reading() as session:
            found = read_columns(session, query, "job", JOB, self._remarks)
        rows = (dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True))
        return [JobRecord(**{name: value for name, value in row.items() if name != "id"}) for row in rows]
