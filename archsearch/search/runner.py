"""The runner: drives a search from its spec to its end, and leaves nothing running in the store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from archsearch.arch import digest_of
from archsearch.errors import ArchsearchError, ClusterError, NothingFeasibleError, PluginError, StorageError, listing
from archsearch.registry import Registry
from archsearch.search.actor import UNPACKAGED, Assignment, pack_plugins
from archsearch.search.ledger import Job, Run
from archsearch.search.pilot import estimate_seconds
from archsearch.search.plan import Campaign, Progress
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import survey
from archsearch.search.view import Briefing, Look, View
from archsearch.search.workers import train, workers
from archsearch.storage import Driver, Store

HEARTBEAT_SECONDS = 10.0
STOP_SECONDS = 5.0
"""How long the main thread may take to note a signal."""


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """How a search ended: its state ("complete" or "cancelled"), why, and its counts; the store has the rest."""

    name: str
    state: str
    reason: str
    progress: Progress
    seconds: float


def run_search(
    spec: SearchSpec, *, registry: Registry, store: Store, view: View | None = None, address: str | None = None
) -> SearchOutcome:
    """Runs a new search to its end, or until SIGINT or SIGTERM, on a local Ray or the cluster at `address`.

    Raises `NothingFeasibleError` when no candidate can be trained, `StorageError` when the name is taken, and
    `ClusterError` when workers cannot be used. After any end no trial is left queued or running in the store.
    """
    problem = Problem.of(spec, registry)
    reports = [report for report in registry.reports() if report.status == "ok"]
    search_id = store.create_search(
        spec.name, spec.to_json(), [objective.to_json() for objective in problem.objectives],
        plugins=[(report.name, report.distribution, report.version) for report in reports], driver=Driver.here(),
    )  # fmt: skip
    return _Drive(problem, registry, store, search_id, view or View(), address).run()


def resume_search(
    name: str, *, registry: Registry, store: Store, view: View | None = None, address: str | None = None
) -> SearchOutcome:
    """Goes on with a search that was stopped, or whose driver was killed; retrains nothing that is measured.

    Raises `StorageError` when there is no such search or its driver is alive, and what `run_search` raises.
    """
    record = store.search(name)
    problem = Problem.of(SearchSpec.from_dict(record.spec, registry), registry)
    store.claim_search(record.id, driver=Driver.here())
    store.mark_orphans(record.id)
    return _Drive(problem, registry, store, record.id, view or View(), address).run()


class _Leave(KeyboardInterrupt):
    """A second signal: leave at once."""


class _Drive:
    """One drive of a campaign; to workers it is the desk where they get jobs and hand in results."""

    def __init__(
        self, problem: Problem, registry: Registry, store: Store, search_id: int, view: View, address: str | None
    ) -> None:
        self._problem, self._registry, self._store, self._search_id = problem, registry, store, search_id
        self._view, self._address = view, address
        self._stop = threading.Event()
        self._fatal: ArchsearchError | None = None
        self._campaign: Campaign | None = None
        self._ended = self._noted = False
        self._lock = threading.RLock()

    def run(self) -> SearchOutcome:
        """The whole of it."""
        start = time.monotonic()
        state, reason, raised = "failed", "the driver failed", True
        try:
            with _heartbeat(self._store, self._search_id), _signals(self._stop), self._watch():
                state, reason = self._carry_out()
            raised = False
        except _Leave:
            state, reason, raised = "cancelled", "stopped by a second signal", False
        except NothingFeasibleError as error:
            state, reason = "infeasible", str(error)
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, ArchsearchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            self._view.ended(state, "" if raised else reason)  # who raises tells why
            if self._campaign is not None:
                self._campaign.stopped(reason)
            self._store.set_search_state(self._search_id, state, reason)
        seconds = time.monotonic() - start
        return SearchOutcome(
            name=self._problem.spec.name, state=state, reason=reason, progress=self.campaign.progress, seconds=seconds
        )

    @property
    def campaign(self) -> Campaign:
        """The campaign, once the store was read."""
        assert self._campaign is not None
        return self._campaign

    def _carry_out(self) -> tuple[str, str]:
        self._campaign = Campaign(self._problem, registry=self._registry, store=self._store, search_id=self._search_id)
        looked = survey(self._problem, self._registry)
        self.campaign.prepare(looked)
        self._view.begun(self._briefing(looked))
        if not self._stop.is_set():
            self._train()
        if self._fatal is not None:
            raise self._fatal
        if self._stop.is_set() and not self._ended:
            return "cancelled", self._stop_reason
        return "complete", self.campaign.progress.ended

    def _train(self) -> None:
        spec = self._problem.spec
        with workers(spec.search.concurrency, self._address) as local, _signals(self._stop):
            unpackaged = [report.name for report in self._registry.reports() if report.distribution == UNPACKAGED]
            if unpackaged and not local:
                raise PluginError(
                    f"{listing(unpackaged)} is not installed as a package, and the workers of a cluster could not "
                    "import it: package it, or run the search on this machine"
                )
            self._plugins = pack_plugins(self._registry)
            self._checkpoints = checkpoint_folder(self._store.url, spec.name, local=local)
            train(self, self._stop, device=spec.recipe.device)
            if local and not self._stop.is_set():
                shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _briefing(self, looked: Any) -> Briefing:
        spec, campaign = self._problem.spec, self.campaign
        seconds = None
        if self._address is None and "RAY_ADDRESS" not in os.environ:
            seconds = estimate_seconds(self._problem, self._registry, campaign.upcoming, campaign.progress.planned)
        return Briefing(
            name=spec.name, database=self._store.url, survey=looked, planned=campaign.progress.planned,
            trials=spec.search.trials, concurrency=spec.search.concurrency, seconds=seconds,
            objectives=[objective.to_json() for objective in self._problem.objectives],
            confirms=bool(self._problem.confirm_seeds),
        )  # fmt: skip

    # -- the desk --------------------------------------------------------------------------------------------

    def next(self) -> Job | None:
        """The campaign's next job; draws on while nothing runs that could be waited for."""
        with self._lock:
            return self._next()

    def _next(self) -> Job | None:
        if self._stop.is_set():
            return None
        answer = self.campaign.next()
        while answer == "wait" and not self.campaign.running and not self._stop.is_set():
            answer = self.campaign.next()
        if isinstance(answer, str):
            self._ended = answer == "done"
            return None
        self._view.trial_started(answer)
        return answer

    @property
    def done(self) -> bool:
        """Whether the campaign has said so."""
        return self._ended

    def assignment(self, job: Job) -> Assignment:
        """A job as names and plain data."""
        return Assignment(
            trial=job.trial,
            arch=job.arch.to_json(),
            tasks={name: task.to_json() for name, task in self._problem.tasks.items()},
            recipe=self._problem.spec.recipe.model_dump(mode="json"),
            runs=[(run.task, run.seed) for run in job.runs],
            fingerprint=self._registry.fingerprint(),
            plugins=self._plugins,
            checkpoints=str(self._checkpoints),
        )

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        """Stores a measurement when the result has one; ends the trial with its last."""
        with self._lock:
            self._report(trial, result)

    def _report(self, trial: int, result: dict[str, Any]) -> None:
        job = self._job(trial)
        if job is None:
            return
        if "measurement" in result:
            self.campaign.measured(job, Run(result["task"], result["seed"]), json.loads(result["measurement"]))
        look = {name: result[name] for name in ("task", "seed", "step", "total_steps", "value")}
        self._view.trial_looked(job, Look(**look))
        if result["done"]:
            state, reason = self.campaign.finished(job)
            self._after(job, state, reason)

    def failed(self, trial: int, reason: str, error: BaseException | None) -> None:
        """Notes that a trial failed; workers that differ from the driver end the search."""
        with self._lock:
            self._fail(trial, reason, error)

    def _fail(self, trial: int, reason: str, error: BaseException | None) -> None:
        job = self._job(trial)
        if job is None or self._stop.is_set():
            return
        self.campaign.failed(job, reason)
        self._after(job, "failed", reason)
        if isinstance(error, ClusterError):
            self._fatal = error
            self._stop.set()

    def stopped(self) -> None:
        """Leaves the store as it must be found, whatever becomes of this process now."""
        with self._lock:
            if self._campaign is not None and self._fatal is None and not self._ended and not self._noted:
                self._noted = True
                self._campaign.stopped(self._stop_reason)
                self._store.set_search_state(self._search_id, "cancelled", self._stop_reason)

    @contextmanager
    def _watch(self) -> Iterator[None]:
        """Does `stopped` from a thread when the main one does not come to it: Ray, killed by a signal to the whole
        process group, can hold it until it ends the process."""
        left = threading.Event()

        def watch() -> None:
            while not self._stop.wait(1.0):
                if left.is_set():
                    return
            if not left.wait(STOP_SECONDS):
                self.stopped()

        threading.Thread(target=watch, name="watch", daemon=True).start()
        try:
            yield
        finally:
            left.set()

    @property
    def _stop_reason(self) -> str:
        return f"stopped by a signal: archsearch resume {self._problem.spec.name} goes on"

    def _job(self, trial: int) -> Job | None:
        return next((job for job in self.campaign.running if job.trial == trial), None)

    def _after(self, job: Job, state: str, reason: str) -> None:
        self._view.trial_ended(job, state, reason)
        self._view.advanced(self.campaign.progress, self.campaign.front)


def checkpoint_folder(database: str, search: str, *, local: bool) -> Path:
    """Where trials of a search keep their checkpoints while they run, on the host that runs them.

    Under ``XDG_CACHE_HOME`` or ``~/.cache``; by a temporary name when that cannot be written. On a cluster the
    home is that of each worker.
    """
    name = digest_of([database, search])
    if not local:
        return Path("~/.cache/archsearch/checkpoints") / name
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "archsearch" / "checkpoints" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="archsearch-checkpoints-"))
    return folder


@contextmanager
def _heartbeat(store: Store, search_id: int) -> Iterator[None]:
    """Says every few seconds that the driver is alive."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                store.heartbeat(search_id)
            except StorageError:
                continue  # a database that is busy or away for a while; the next write of a trial says so if it stays

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """The first SIGINT or SIGTERM sets `stop`, the second leaves at once; nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise _Leave
        stop.set()

    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
