"""Cluster: one Ray cluster's jobs over HTTP, every answer waited for a bounded time, every failure a `ClusterError`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from archsearch.errors import ClusterError, SpecError
from archsearch.jobs.address import read_address
from archsearch.ray_settings import mode_fault, token_exposed, token_fault
from archsearch.waiting import within

TIMEOUT_SECONDS, REQUEST_SECONDS = 15.0, 60.0
"""Without a byte, and for a whole answer."""

SEARCH_KEY = "archsearch"
"""Metadata key that marks a job as one of ours; its value is the name of the search."""
KEY_KEY, OWNER_KEY, ASKS_KEY = "archsearch.key", "archsearch.owner", "archsearch.asks"
"""Metadata keys: the key of the submission, who submitted it, and what it asks of one node, in words."""
TIME_UP = 7
"""The exit status of a search whose time was up."""

_NOT_FOUND = 127
_FINISHED = ("SUCCEEDED", "FAILED", "STOPPED")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_STATUS_CODE = re.compile(r"status code (\d+)")
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

for name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One submitted job; the moments are UTC-aware, ``status`` is Ray's word and ``message`` its explanation."""

    id: str
    search: str | None
    status: str
    message: str
    entrypoint: str
    exit_code: int | None
    key: str | None = None
    owner: str | None = None
    asks: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the status can change no more."""
        return self.status in _FINISHED

    @property
    def reason(self) -> str:
        """Why the job is pending or failed, in a sentence; empty for any other status."""
        if self.status == "PENDING":
            return f"{self.message} If it stays so, no node of the cluster has room for it."
        if self.status != "FAILED":
            return ""
        if "actor failed to start" in self.message:
            return "no node of the cluster had room for it in time: ask for fewer --cpus, or wait for room"
        if self.exit_code == _NOT_FOUND:
            return (
                "archsearch is not installed on the cluster's head node, or not on the PATH that Ray was started with"
            )
        if self.exit_code == TIME_UP:
            return "its time was up (--max-hours, --until): `archsearch submit SPEC --resume` goes on"
        return self.message.partition("\n")[0].partition(", last available logs")[0]


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster as its dashboard tells of it; ``clock`` is its time in seconds since 1970."""

    host: str
    head: bool
    cpus: float
    gpus: float
    clock: float | None


class JobsClient(Protocol):
    """What is used of ``ray.job_submission.JobSubmissionClient``."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
        entrypoint_num_cpus: float,
        entrypoint_num_gpus: float,
    ) -> str: ...

    def ask(self, endpoint: str) -> Any: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def list_jobs(self) -> list[Any]: ...

    def get_job_logs(self, job_id: str) -> str: ...

    def stop_job(self, job_id: str) -> bool: ...


class _BoundedClient(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client, which waits for ever by itself, with a limit to every request, looking up the name included."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        request = super()._do_request
        return within(REQUEST_SECONDS, lambda: request(method, endpoint, timeout=TIMEOUT_SECONDS, **options))

    def ask(self, endpoint: str) -> Any:
        """The JSON that the dashboard answers, None where it has no such page."""
        answer = self._do_request("GET", endpoint)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            self._raise_error(answer)
        return answer.json()


def connect(address: str) -> JobsClient:
    """Ray's client for exactly `address`: the variables that it would rather follow are out of its sight."""
    hidden = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        client: JobsClient = _BoundedClient(address)
        return client
    finally:
        os.environ.update(hidden)


class Cluster:
    """The jobs of the cluster whose dashboard is at `address`.

    Raises `ClusterError` in the constructor when nothing answers there, and in every method when the cluster stops
    answering or does not know the job.
    """

    def __init__(self, address: str, *, connect: Callable[[str], JobsClient] = connect) -> None:
        self.address = read_address(address)
        fault = mode_fault(os.environ) or token_exposed(os.environ)
        if fault:
            raise ClusterError(fault)
        try:
            with self._asking():
                self._client = connect(self.address)
        except (KeyError, TypeError, _RefusedError):
            raise ClusterError(
                f"what answers at {self.address} is no Ray dashboard: give the URL that `ray start --head` printed"
            ) from None

    def submit(
        self,
        job_id: str,
        entrypoint: str,
        *,
        metadata: Mapping[str, str],
        runtime_env: Mapping[str, Any],
        cpus: float = 0.0,
        gpus: float = 0.0,
    ) -> None:
        """Starts `entrypoint` (a shell line) as job `job_id`, with `cpus` and `gpus` of one node kept for it."""
        _check_id(job_id)
        try:
            with self._asking():
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=dict(runtime_env),
                    metadata=dict(metadata),
                    entrypoint_num_cpus=cpus,
                    entrypoint_num_gpus=gpus,
                )
        except _RefusedError as refused:
            if "already exists" in refused.text:
                raise JobExistsError(
                    f'{self.address} already has a job "{job_id}": give another --job-id, or leave it out'
                ) from None
            raise self._unexpected(refused) from None

    def authenticates(self) -> bool:
        """Whether whoever comes must show the cluster's token."""
        answer = self._asked("/api/authentication_mode")
        return isinstance(answer, dict) and answer.get("authentication_mode") == "token"

    def ray_version(self) -> str:
        """The version of Ray on the head node."""
        answer = self._asked("/api/version")
        return str(answer.get("ray_version", "unknown")) if isinstance(answer, dict) else "unknown"

    def nodes(self) -> list[Node]:
        """The machines that are there, the head first; empty where the dashboard does not tell."""
        answer = self._asked("/nodes?view=summary")
        try:
            found = [_node(told) for told in answer["data"]["summary"] if told["raylet"].get("state") == "ALIVE"]
        except (AttributeError, KeyError, TypeError, ValueError):  # another version's
            return []
        return sorted(found, key=lambda node: (not node.head, node.host))

    def why(self, job: Job) -> str:
        """`Job.reason`, with what a waiting job asks for and what the cluster has."""
        if job.status != "PENDING" or not job.asks:
            return job.reason
        return f"it asks for {job.asks} on one node; the cluster has {room(self.nodes())}"

    def job(self, job_id: str) -> Job:
        """The job of that id as it is now."""
        return _job(self._ask_about(job_id, self._client.get_job_info))

    def jobs(self) -> list[Job]:
        """The searches that were submitted to this cluster, the newest first."""
        try:
            with self._asking():
                found = self._client.list_jobs()
        except _RefusedError as refused:
            raise self._unexpected(refused) from None
        ours = [_job(details) for details in found if SEARCH_KEY in (details.metadata or {}) and details.submission_id]
        return sorted(ours, key=lambda job: (job.started_at or datetime.max.replace(tzinfo=UTC), job.id), reverse=True)

    def logs(self, job_id: str) -> str:
        """All that the job has printed so far."""
        return str(self._ask_about(job_id, self._client.get_job_logs))

    def request_stop(self, job_id: str) -> None:
        """Asks the job to stop and returns at once; see `archsearch.jobs.stop`."""
        self._ask_about(job_id, self._client.stop_job)

    def _ask_about(self, job_id: str, question: Callable[[str], Any]) -> Any:
        _check_id(job_id)
        try:
            with self._asking():
                return question(job_id)
        except _RefusedError as refused:
            if refused.code == 404:
                raise NoJobError(
                    f'{self.address} has no job "{job_id}": `archsearch jobs --address {self.address}` lists them'
                ) from None
            raise self._unexpected(refused) from None

    def _asked(self, endpoint: str) -> Any:
        try:
            with self._asking():
                return self._client.ask(endpoint)
        except _RefusedError as refused:
            raise self._unexpected(refused) from None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turns what Ray's client raises into `ClusterError`, or `_RefusedError` for an answer that says no."""
        try:
            yield
        except AuthenticationError:
            raise ClusterError(
                token_fault(os.environ)
                or f"{self.address} asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH where "
                "the cluster's token is not the one in ~/.ray/auth_token"
            ) from None
        except OSError as error:
            raise UnreachableError(
                f"cannot reach a Ray cluster at {self.address} ({_cause(error)}): "
                "is `ray start --head` running there, and is this the URL of its dashboard?"
            ) from None
        except RuntimeError as error:
            raise _RefusedError(str(error)) from None

    def _unexpected(self, refused: _RefusedError) -> ClusterError:
        return ClusterError(f"{self.address} answered: {refused.last_line}: see the dashboard's log on the head node")


class JobExistsError(ClusterError):
    """The cluster has a job of that id already."""


class NoJobError(ClusterError):
    """The cluster has no job of that id."""


class UnreachableError(ClusterError):
    """No answer came: what was sent may have arrived all the same."""


class _RefusedError(ClusterError):
    """The cluster answered, and not with what was asked for."""

    def __init__(self, text: str) -> None:
        found = _STATUS_CODE.search(text)
        self.text, self.code = text, int(found[1]) if found else None
        super().__init__(f"the Ray cluster refused: {self.last_line}")

    @property
    def last_line(self) -> str:
        """The end of the traceback that Ray answers with, which says what went wrong."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip(" .")]
        return lines[-1].rstrip(".") if lines else "nothing"


def _check_id(job_id: str) -> None:
    if not _JOB_ID.match(job_id):
        raise SpecError(f'"{job_id}" cannot be a job id: letters, digits, ".", "_" and "-", a letter or digit first')


def _job(details: Any) -> Job:
    told = details.metadata or {}
    return Job(
        id=details.submission_id or details.job_id or "",
        search=told.get(SEARCH_KEY),
        key=told.get(KEY_KEY),
        owner=told.get(OWNER_KEY),
        asks=told.get(ASKS_KEY, ""),
        status=str(details.status),
        message=details.message or "",
        entrypoint=details.entrypoint,
        exit_code=details.driver_exit_code,
        started_at=_moment(details.start_time),
        finished_at=_moment(details.end_time),
    )


def _node(told: Mapping[str, Any]) -> Node:
    raylet, clock = told["raylet"], told.get("now")
    held = raylet.get("resourcesTotal", {})
    return Node(
        host=str(told.get("hostname") or raylet.get("nodeName") or "unknown"),
        head=bool(raylet.get("isHeadNode")),
        cpus=float(held.get("CPU", 0.0)),
        gpus=float(held.get("GPU", 0.0)),
        clock=float(clock) if clock else None,
    )


def asks(cpus: float, gpus: float) -> str:
    """What a job asks of one node, in words; "" for nothing."""
    return " and ".join(f"{count:g} {what}" for count, what in ((cpus, "CPUs"), (gpus, "GPUs")) if count)


def room(nodes: Sequence[Node]) -> str:
    """What the machines hold, in words."""
    if not nodes:
        return "no node that its dashboard tells of"
    most = asks(max(node.cpus for node in nodes), max(node.gpus for node in nodes)) or "no CPUs"
    return f"{len(nodes)} node{'s' * (len(nodes) > 1)} of at most {most}"


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _cause(error: OSError) -> str:
    text = str(error)
    if text.startswith("no answer in"):
        return text
    if "timed out" in text.lower():
        return f"no answer in {TIMEOUT_SECONDS:.0f} s"
    for known in ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable"):
        if known in text:
            return known.lower()
    return "no connection" if "Failed to connect" in text else type(error).__name__
