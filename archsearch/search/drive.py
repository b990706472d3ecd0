"""The drive of a search: takes its campaign to the end through workers, and leaves nothing running in the store."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from archsearch.errors import (
    ArchsearchError,
    ClusterError,
    NothingFeasibleError,
    PluginError,
    SpecError,
    StorageError,
    TakenOverError,
    listing,
)
from archsearch.evidence.standing import PROVE
from archsearch.registry import UNPACKAGED
from archsearch.search.actor import IMPL_VARIABLE, Assignment, pack_plugins
from archsearch.search.added import parts_beside
from archsearch.search.checkpoint_place import checkpoint_folder, named_folder
from archsearch.search.failures import Failure, Place
from archsearch.search.kernels_ahead import proven_ahead
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.presence import LeaveAtOnce, StopSignals, heartbeat
from archsearch.search.problem import Problem
from archsearch.search.progress import Progress
from archsearch.search.ray_session import JoiningStopped, Workers, workers
from archsearch.search.stopping import Stop
from archsearch.search.survey import Survey, nothing_feasible, survey
from archsearch.search.time_limit import TimeLimit
from archsearch.search.view import Briefing, TrialProgress, View
from archsearch.search.workers import demand_of, train
from archsearch.source import Part
from archsearch.storage import SearchRecord, Store
from archsearch.training.checkpoint import check_store

LOST_IN_A_ROW = 5
"""Trials, or twice as many as run at a time, that lose their workers one after another before a search is ended."""
STOP_SECONDS, LEAVE_SECONDS = 5.0, 30.0
"""How long the main thread may take to note a signal, and then to leave Ray; where Ray is gone, it ends us sooner."""
CANCELLED = 130
"""The exit code of a search that a signal has stopped."""

Given = TypeVar("Given")
_log = logging.getLogger("archsearch.search")


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """How a search ended: its state ("complete", "failed", "cancelled" or "interrupted"), why, and its counts; the
    store has the rest. ``time_up`` says that a time limit cancelled it."""

    name: str
    state: str
    reason: str
    progress: Progress
    seconds: float
    time_up: bool = False


class Drive:
    """One drive of a campaign; to workers it is the source of trials, to which their results go."""

    def __init__(
        self,
        problem: Problem,
        store: Store,
        search_id: int,
        view: View,
        address: str | None,
        *,
        before: SearchRecord | None = None,
        limit: TimeLimit | None = None,
    ) -> None:
        """``before`` is the search as it was, of which nothing has changed yet; ``limit`` says when it is to end."""
        self._before, self._limit, self._time_up = before, limit or TimeLimit(), ""
        self._problem, self._registry, self._store, self._search_id = problem, problem.registry, store, search_id
        self._view, self._address = view, address
        self._signals = StopSignals()
        self._stop = self._signals.stop
        self._fatal: Exception | None = None
        self._campaign: Campaign | None = None
        self._first_failure = ""
        self._lost_in_a_row = 0
        self._ended = self._noted = False
        self._stops: dict[int, Stop] = {}
        self._notes: set[str] = set()
        self._lock = threading.RLock()

    def run(self) -> SearchOutcome:
        """The whole of it."""
        start = time.monotonic()
        state, reason, raised = "failed", "the driver failed", True
        try:
            with (
                heartbeat(self._store, self._search_id, self._lost),
                self._signals.listening(),
                self._watch(),
                self._limit.watched(self._stop, self._note_time),
            ):
                state, reason = self._carry_out()
            raised = False
        except (LeaveAtOnce, JoiningStopped) as left:
            state, reason, raised = "cancelled", str(left) or self._stop_reason, False
        except NothingFeasibleError as error:
            state, reason = "infeasible", str(error)
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, ArchsearchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            self._leave(state, reason, raised=raised)
        progress = self._campaign.progress if self._campaign is not None else Progress()
        return SearchOutcome(
            name=self._problem.spec.name,
            state=state,
            reason=reason,
            progress=progress,
            seconds=time.monotonic() - start,
            time_up=state == "cancelled" and bool(self._time_up),
        )

    def _note_time(self, why: str) -> None:
        self._time_up = why

    def _leave(self, state: str, reason: str, *, raised: bool) -> None:
        """Stores how it ended, then tells it; who raises tells why. An error on the way out does not hide the first."""
        try:
            if self._campaign is not None:
                self._campaign.stopped(reason)
            self._store.set_search_state(self._search_id, *self._stored_end(state, reason))
        except StorageError as error:
            if not raised:
                raise
            if isinstance(error, TakenOverError):
                return  # the other driver says how it ends
            _log.warning("how the search ended could not be stored: %s", error)
        self._view.ended(state, "" if raised else reason)

    def _stored_end(self, state: str, reason: str) -> tuple[str, str]:
        """How it ended; where it ended before it was taken up again, as with no cluster to join, how it stood."""
        if self._campaign is None and self._before is not None and self._before.state != "running":
            return self._before.state, self._before.reason
        return state, reason

    @property
    def campaign(self) -> Campaign:
        """The campaign, once the store was read."""
        assert self._campaign is not None
        return self._campaign

    def _carry_out(self) -> tuple[str, str]:
        spec = self._problem.spec
        looked = survey(self._problem)
        if looked.exhaustive and not looked.trainable:
            raise nothing_feasible(self._problem, looked.judged, looked.tightest, looked.refused)
        if self._stop.is_set():
            return "cancelled", self._stop_reason
        with (
            workers(
                math.ceil(spec.search.concurrency * spec.resources.workers * spec.resources.cpu),
                self._address,
                device=spec.recipe.device,
                stop=self._stop,
                tell=self._view.noted,
            ) as found,
            self._signals.listening(),
        ):
            self._train(found, looked)
        if self._fatal is not None:
            raise self._fatal
        if self._stop.is_set() and not self._ended:
            return "cancelled", self._stop_reason
        return self._verdict()

    def _verdict(self) -> tuple[str, str]:
        """A search that trained and has no complete trial has failed; one with trials that lost their workers is not
        at its end."""
        progress = self.campaign.progress
        counts = ((progress.failed, "failed"), (progress.diverged, "diverged"))
        lost = " and ".join(f"{count} {what}" for count, what in counts if count)
        first = f", the first because {self._first_failure}" if self._first_failure else ""
        if progress.lost:
            told = f"{progress.lost} lost their workers" + (f" and {lost}" if lost else "")
            return "interrupted", f"of the trials {told}{first}: {self._resume} tries those again that were lost"
        if progress.fruitless:
            return "failed", f"no trial is complete: {lost}{first}"
        stopped = f"{progress.pruned} trial{'s were' if progress.pruned != 1 else ' was'} stopped early"
        parts = [progress.ended, lost and f"of the trials {lost}", stopped if progress.pruned else ""]
        return "complete", "; ".join(filter(None, parts))

    def _train(self, found: Workers, looked: Survey) -> None:
        spec = self._problem.spec
        if spec.recipe.device == "cuda" and found.device != "cuda":
            raise SpecError('recipe.device = "cuda", but the workers have no GPU: use "cpu" or "auto"')
        if spec.resources.gpu and found.device != "cuda":
            raise SpecError(
                f"resources.gpu = {spec.resources.gpu:g}, but the workers have no GPU: leave it out, or use machines "
                "that have one"
            )
        unpackaged = [report.name for report in self._registry.reports() if report.distribution == UNPACKAGED]
        if unpackaged and not found.local:
            raise PluginError(
                f"{listing(unpackaged)} is not installed as a package, and the workers of a cluster could not "
                "import it: package it, or run the search on this machine"
            )
        self._plugins = pack_plugins(self._registry)
        demand = demand_of(spec.resources, found.device)
        self._campaign = Campaign(
            self._problem,
            store=self._store,
            search_id=self._search_id,
            device=found.device,
            proven=proven_ahead(self._problem, demand, self._plugins, stop=self._stop, tell=self._view.noted),
        )
        self.campaign.prepare(looked)
        self._view.begun(self._briefing(looked))
        self._parts = [(part.name, part.version, part.digest) for part in self._problem.parts()]
        self._checkpoints = self._checkpoint_place(local=found.local)
        train(self, self._stop, device=found.device, resources=spec.resources)
        done = not self._stop.is_set() and not self.campaign.progress.lost
        if found.local and done and spec.resources.checkpoints is None:
            shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _checkpoint_place(self, *, local: bool) -> str:
        """A folder or a URL, of this search in this database alone."""
        name, place = self._problem.spec.name, self._problem.spec.resources.checkpoints
        if place is None:
            return str(checkpoint_folder(self._store.url, name, local=local))
        check_store(place)
        return named_folder(place, self._store.url, name)

    def _briefing(self, looked: Survey) -> Briefing:
        spec = self._problem.spec
        return Briefing(
            name=spec.name,
            database=self._store.url,
            survey=looked,
            planned=self.campaign.progress.planned,
            trials=spec.search.trials,
            concurrency=spec.search.concurrency,
            objectives=self._problem.objectives,
            confirms=bool(self._problem.confirm_seeds),
        )

    # -- the source of trials --------------------------------------------------------------------------------

    def next(self) -> TrialOrder | None:
        """The campaign's next order; draws on while nothing runs that could be waited for."""
        return self._keeping(self._next)

    def _next(self) -> TrialOrder | None:
        if self._stop.is_set():
            return None
        answer = self.campaign.next()
        while answer == "wait" and not self.campaign.busy and not self._stop.is_set():
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

    def assignment(self, order: TrialOrder) -> Assignment:
        """An order as names and plain data."""
        return Assignment(
            trial=order.trial,
            arch=order.arch.to_json(),
            tasks={name: task.to_json() for name, task in self._problem.tasks.items()},
            recipe=self._problem.spec.training.model_dump(mode="json"),
            steps=self._problem.steps_of(order.arch),
            runs=[(run.task, run.seed) for run in order.runs],
            parts=self._parts + [(part.name, part.version, part.digest) for part in self._beside(order)],
            installed=self._registry.fingerprint(),
            plugins=self._plugins,
            impl=os.environ.get(IMPL_VARIABLE) or "auto",
            prove=os.environ.get(PROVE, ""),
            checkpoints=self._checkpoints,
            evaluators=self._problem.evaluators,
        )

    def placed(self, trial: int, place: Place) -> None:
        """Stores where a trial runs."""
        self._keeping(lambda: self._place(trial, place))

    def _place(self, trial: int, place: Place) -> None:
        order = self._order(trial)
        if order is not None:
            self.campaign.placed(order, place.to_json())

    def _beside(self, order: TrialOrder) -> list[Part]:
        """The parts of source that only this candidate has, which somebody may have added."""
        known = order.kind == "added" or order.parent is not None
        return parts_beside(order.arch, self._problem) if known else []

    def stops(self, trial: int, result: dict[str, Any]) -> bool:
        """Whether early stopping ends the trial with this result."""
        return bool(self._keeping(lambda: self._stop_at(trial, result)))

    def _stop_at(self, trial: int, result: dict[str, Any]) -> bool:
        order = self._order(trial)
        if order is None or self._stop.is_set():
            return False
        measurement = json.loads(result["measurement"]) if "measurement" in result else None
        run = Run(result["task"], result["seed"])
        stop = self.campaign.looked(order, run, result.get("looks", ()), measurement)
        if stop is not None:
            self._stops[trial] = stop
        return stop is not None

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        """Stores a measurement when the result has one; ends the trial with its last."""
        self._keeping(lambda: self._report(trial, result))

    def _report(self, trial: int, result: dict[str, Any]) -> None:
        order = self._order(trial)
        if order is None:
            return
        self._note(result.get("note", ""))
        if "measurement" in result:
            self.campaign.measured(order, Run(result["task"], result["seed"]), json.loads(result["measurement"]))
        told = {name: result[name] for name in ("task", "seed", "step", "total_steps", "value")}
        self._view.trial_progressed(order, TrialProgress(**told))
        stop = self._stops.pop(trial, None)
        if stop is not None:
            self._lost_in_a_row = 0
            self.campaign.pruned(order, stop)
            self._after(order, "pruned", stop.reason)
        elif result["done"]:
            self._lost_in_a_row = 0
            state, reason = self.campaign.finished(order)
            self._after(order, state, reason)

    def _note(self, text: str) -> None:
        if text and text not in self._notes:
            self._notes.add(text)
            self._view.noted(text)

    def failed(self, trial: int, failure: Failure) -> None:
        """Notes that a trial failed; workers that differ from the driver end the search."""
        self._keeping(lambda: self._fail(trial, failure))

    def _keeping(self, action: Callable[[], Given]) -> Given | None:
        """`action`, whose error ends the search as itself: on its way through Tune it would lose its kind."""
        with self._lock:
            try:
                return action()
            except Exception as error:
                self._fatal = self._fatal or error
                self._stop.set()
                return None

    def _fail(self, trial: int, failure: Failure) -> None:
        order = self._order(trial)
        if order is None or self._stop.is_set():
            return
        if failure.again and (seconds := self.campaign.again(order, failure.reason)) is not None:
            self._view.trial_ended(order, "preempted", f"{failure.reason}: tried again in {seconds:.0f} s")
            return
        self._first_failure = self._first_failure or failure.reason
        if failure.kind == "lost":
            self.campaign.lost(order)
            self._after(order, "preempted", failure.reason)
            self._give_up_on_workers(failure.reason)
            return
        self._lost_in_a_row = 0
        self.campaign.failed(order, failure.reason)
        self._after(order, "failed", failure.reason)
        if isinstance(failure.error, ClusterError):
            self._fatal = failure.error
            self._stop.set()

    def _give_up_on_workers(self, reason: str) -> None:
        """Ends a search that only loses workers: the cluster is to be mended first."""
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= max(LOST_IN_A_ROW, 2 * self._problem.spec.search.concurrency):
            raise ClusterError(
                f"{self._lost_in_a_row} trials in a row have lost their workers, the last because {reason}: "
                f"look at the cluster, then {self._resume} goes on"
            )

    def gone(self, fault: str) -> None:
        """Ends the search for want of a cluster, from a thread: Ray may hold the main one until it ends the process."""
        with self._lock:
            if self._stop.is_set() or self._ended:
                return
            self._fatal = ClusterError(f"the Ray cluster is gone: {fault}: {self._resume} goes on")
            self._stop.set()
        self._put_in_order("failed", str(self._fatal))

    def stopped(self) -> None:
        """Leaves the store as it must be found, whatever becomes of this process now."""
        with self._lock:
            if self._fatal is None and not self._ended:
                self._put_in_order("cancelled", self._stop_reason)

    def _put_in_order(self, state: str, reason: str) -> None:
        with self._lock:
            if self._campaign is None or self._noted:
                return
            self._noted = True
            try:
                self._campaign.stopped(reason)
                self._store.set_search_state(self._search_id, state, reason)
            except StorageError as error:
                self._fatal = self._fatal or error

    def _lost(self, error: TakenOverError) -> None:
        """The search is another driver's: nothing that still comes counts."""
        self._fatal = self._fatal or error
        self._stop.set()

    @contextmanager
    def _watch(self) -> Iterator[None]:
        """Does `stopped` from a thread when the main one does not come to it: Ray, killed by a signal to the whole
        process group, can hold it until it ends the process: which is done here, where that takes long, with the exit
        code that the search would have had."""
        left = threading.Event()

        def watch() -> None:
            while not self._stop.wait(1.0):
                if left.is_set():
                    return
            if not left.wait(STOP_SECONDS):
                self.stopped()
                if self._noted and not left.wait(LEAVE_SECONDS if self._fatal is None else STOP_SECONDS):
                    self._leave_held()

        threading.Thread(target=watch, name="watch", daemon=True).start()
        try:
            yield
        finally:
            left.set()

    def _leave_held(self) -> None:
        """Ends this process, whose main thread Ray does not give back; the store is in order."""
        text = f"error: {self._fatal}" if self._fatal is not None else self._stop_reason
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
        os._exit(self._fatal.exit_code if isinstance(self._fatal, ArchsearchError) else CANCELLED)

    @property
    def _resume(self) -> str:
        return f"archsearch resume {shlex.quote(self._problem.spec.name)}"

    @property
    def _stop_reason(self) -> str:
        return f"{self._time_up or 'stopped by a signal'}: {self._resume} goes on"

    def _order(self, trial: int) -> TrialOrder | None:
        return next((order for order in self.campaign.running if order.trial == trial), None)

    def _after(self, order: TrialOrder, state: str, reason: str) -> None:
        self._view.trial_ended(order, state, reason)
        self._view.advanced(self.campaign.progress, self.campaign.front)
