"""Following a job: until it starts, until it ends, until it has stopped; each for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

from archsearch.errors import ClusterError
from archsearch.jobs.cluster import Cluster, Job

STOP_SECONDS = 30
"""How long a job may take to stop cleanly before Ray kills it."""

_POLL_SECONDS = 1.0
_LOG_CHARS_PER_SECOND = 250_000
_FAILURES = 5
_PENDING_SECONDS = 20.0


class NotScheduledError(ClusterError):
    """A job did not start in time, and was asked to stop."""


Tell = Callable[[str], None]
Clock = Callable[[], float]
Sleep = Callable[[float], None]


def wait_for_start(
    cluster: Cluster,
    job_id: str,
    *,
    seconds: float = 300.0,
    tell: Tell = lambda text: None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Job:
    """The job once it is no longer pending; `tell` is told what is waited for, and soon why it does not start.

    After `seconds` it is asked to stop, and `ClusterError` says what it asks for and what the cluster has.
    """
    patience = min(seconds, _PENDING_SECONDS)
    tell(f"waiting for job {job_id} to start (Ctrl-C leaves it waiting)")
    job = _wait(cluster, job_id, _has_started, patience, clock, sleep)
    if not _has_started(job) and seconds > patience:
        tell(f"job {job_id} has not started: {cluster.why(job)}; waiting up to {seconds - patience:.0f} s more")
        job = _wait(cluster, job_id, _has_started, seconds - patience, clock, sleep)
    if _has_started(job):
        return job
    cluster.request_stop(job_id)
    raise NotScheduledError(
        f"job {job_id} has not started in {seconds:.0f} s: {cluster.why(job)}: it was asked to stop, and ends as "
        "soon as it would start; ask for less with --cpus and --gpus, or wait longer with --schedule-timeout"
    )


def _has_started(job: Job) -> bool:
    return job.status != "PENDING"


def stop(
    cluster: Cluster,
    job_id: str,
    *,
    tell: Tell = lambda text: None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Job:
    """Asks the job to stop, waits until it has, and returns it; one that had finished is left as it is.

    `tell` is told what is waited for. Raises `ClusterError` when it has not stopped by then.
    """
    job = cluster.job(job_id)
    if job.finished:
        return job
    cluster.request_stop(job_id)
    limit = STOP_SECONDS + 15.0 if job.status == "RUNNING" else 15.0
    tell(f"waiting up to {limit:.0f} s for job {job_id} to stop")
    job = _wait(cluster, job_id, lambda job: job.finished, limit, clock, sleep)
    if not job.finished:
        reason = " (Ray stops a job only once it has started)" if job.status == "PENDING" else ""
        raise ClusterError(
            f'job "{job_id}" was asked to stop and is still {job.status} after {limit:.0f} s{reason}: '
            f"look again with `archsearch jobs --address {cluster.address}`"
        )
    return job


def _wait(
    cluster: Cluster, job_id: str, done: Callable[[Job], bool], seconds: float, clock: Clock, sleep: Sleep
) -> Job:
    deadline = clock() + seconds
    job = cluster.job(job_id)
    while not done(job) and clock() < deadline:
        sleep(_POLL_SECONDS)
        job = cluster.job(job_id)
    return job


def follow(
    cluster: Cluster,
    job_id: str,
    write: Callable[[str], None],
    *,
    tell: Tell,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Job:
    """Writes what the job prints until it has finished, and returns it.

    That it has finished is taken from its status, since Ray's own log stream can end early. `tell` is given remarks
    about the job itself, as that it cannot start. Raises `ClusterError` when the cluster no longer answers.
    """
    shown, failures, told = 0, 0, False
    began = clock()
    while True:
        try:
            job = cluster.job(job_id)
            text = cluster.logs(job_id)
        except ClusterError:
            failures += 1
            if failures >= _FAILURES or shown == 0:
                raise
            sleep(_POLL_SECONDS * 2**failures)
            continue
        failures = 0
        write(text[shown:])
        shown = max(shown, len(text))
        if job.finished:
            return job
        if job.status == "PENDING" and not told and clock() - began > _PENDING_SECONDS:
            told = True
            tell(f"job {job.id} is PENDING: {cluster.why(job)}")
        sleep(_POLL_SECONDS + len(text) / _LOG_CHARS_PER_SECOND)
