"""Rows: where the submitter keeps what it knows of jobs, and how it learns more.

They lie in the team's database where that can be opened from here. A SQLite database is of one machine, the cluster's
another: then they lie in the submitter's own file, which makes submissions from here safe to repeat.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from archsearch.errors import StorageError
from archsearch.jobs.cluster import Job
from archsearch.jobs.following import Tell
from archsearch.storage.jobs import LOST, PREPARING, JobRecord, Jobs, NewJob
from archsearch.storage.url import read_url

LOCAL_FILE = "jobs.db"


class Rows:
    """The jobs that are known here; what the cluster tells of them is noted."""

    def __init__(self, jobs: Jobs, *, shared: bool) -> None:
        self._jobs, self.shared = jobs, shared

    @property
    def url(self) -> str:
        """Where they lie, without passwords."""
        return self._jobs.url

    def name_for(self, key: str, base: str, number: int) -> str:
        """The name of a job of this key: that of one which never arrived, or one that no other has."""
        record = self._jobs.with_key(key)
        if record is not None:
            return record.name
        while self._jobs.named(name := base + (f"-{number + 1}" if number else "")) is not None:
            number += 1
        return name

    def begin(self, job: NewJob) -> None:
        """Writes the row of a job that is about to be sent; raises `StorageError` where its name or its key is that of
        another."""
        record, _ = self._jobs.begin(job)
        if record.key != job.key:
            raise StorageError(
                f'{self.url} already has a job "{job.name}" of another submission: give another --job-id, or leave it '
                "out"
            )
        if (record.name, record.address) != (job.name, job.address):
            raise StorageError(
                f'{self.url} has the job "{record.name}" of this key, at {record.address}: give another --key'
            )

    def note(self, name: str, state: str, reason: str = "") -> None:
        """What became of a job."""
        self._jobs.note(name, state, reason)

    def heard(self, job: Job) -> None:
        """What the cluster says of a job."""
        self._jobs.note(job.id, job.status.lower(), job.reason if job.finished else "")

    def free(self, name: str) -> None:
        """Lets a job that has ended make room for another submission of the same."""
        record = self._jobs.named(name)
        if record is not None:
            self._jobs.release(record)

    def free_lost(self, address: str, key: str, there: Collection[str], *, given: bool) -> None:
        """Lets a job of this key that the cluster has no more make room for another; one that never arrived stays to be
        sent. Raises `StorageError` for a key that was `given`, which is one job's for good."""
        record = self._jobs.with_key(key)
        if record is None or record.name in there or record.state == PREPARING:
            return
        if given:
            raise StorageError(
                f'the key "{key}" is that of the job "{record.name}" at {record.address}, which is {record.state} and '
                f"which {address} does not have: give another --key"
            )
        if not record.ended:
            self._jobs.note(record.name, LOST, "the cluster knows it no more")
        self._jobs.release(record)

    def learn(self, address: str, jobs: Collection[Job]) -> list[JobRecord]:
        """Notes how `jobs` stand; those that are known here and that the cluster does not have."""
        by_name = {job.id: job for job in jobs}
        missing = []
        for record in self._jobs.all(address):
            job = by_name.get(record.name)
            if job is not None:
                if record.state != job.status.lower():
                    self.heard(job)
                continue
            if not record.ended and record.state != PREPARING:
                self._jobs.note(record.name, LOST, "the cluster knows it no more")
                record = self._jobs.named(record.name) or record
            missing.append(record)
        return missing


@contextmanager
def open_rows(url: str, tell: Tell) -> Iterator[Rows]:
    """The rows in the database at `url` where that is a server that can be reached, else in a file of this user's.

    Raises `StorageError` where neither can be written.
    """
    shared = read_url(url).get_backend_name() != "sqlite"
    if shared:
        try:
            jobs = Jobs.open(url)
        except StorageError as error:
            tell(f"the job is noted in {local_file()}, as the database cannot be reached from here: {error}")
            shared = False
    if not shared:
        path = local_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"jobs are noted in {path}, whose folder cannot be made ({error.strerror}): set XDG_STATE_HOME to one "
                "that can be written"
            ) from None
        jobs = Jobs.open(f"sqlite:///{path}")
    with jobs:
        yield Rows(jobs, shared=shared)


def local_file() -> Path:
    """The file of this user's jobs, below ``XDG_STATE_HOME`` or ``~/.local/state``."""
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else Path.home() / ".local" / "state") / "archsearch" / LOCAL_FILE
