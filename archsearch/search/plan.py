"""The plan of a search, as pure logic: which trial comes next, and what follows from one that ended."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from archsearch.analysis.running_front import FrontPoint, RunningFront
from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError
from archsearch.kernels.forms import Use
from archsearch.search.added import judge_candidate, parts_beside
from archsearch.search.draws import Draws
from archsearch.search.known import Known
from archsearch.search.ledger import WAITS, Ending, Ledger, Run, TrialOrder, is_second
from archsearch.search.model_choice import Judged
from archsearch.search.orders import Orders, Pending
from archsearch.search.problem import Problem, Verdict
from archsearch.search.progress import Progress
from archsearch.search.pruning import Pruning
from archsearch.search.sampler import Proposal, Sampler
from archsearch.search.second_trials import SecondTrials
from archsearch.search.stopping import Looks, Stop
from archsearch.search.stored import read_stored
from archsearch.search.survey import Survey, nothing_feasible, refused, tightest
from archsearch.search.trial_store import TrialStore
from archsearch.storage import ProposalRecord, TrialRecord

DRAWS_A_CALL = 100
"""Draws that one call of `Campaign.next` makes before it lets its caller look at other things."""
PURE = 1000
"""Pure candidates that are tried where a sample of the space had nothing within the budget."""
LOOK_SECONDS = 1.0
"""Between two looks for candidates that people have added."""
_TELL_NOTHING = ("infeasible", "superseded", "cancelled")
"""States of trials that early stopping learns nothing from."""

_log = logging.getLogger("archsearch.search")


class Campaign:
    """One search from its first reference to the last confirmation of its front.

    After `prepare`, `next` hands out an order, or says "wait" (until a running one ends) or "done". Every order is
    answered by `measured` for each of its runs and then by `finished` or `failed`, by `pruned` where `looked` says that
    it is to be stopped, or by `again` where its worker was lost, and by `failed` or `lost` where that gives it up;
    `stopped` answers all that is left. With one order at a time, equal specs and seeds give equal candidates.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        store: TrialStore,
        search_id: int,
        device: str = "cpu",
        proven: frozenset[Use] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``proven`` are the rows of kernels that workers take; ``clock``, in seconds, is for tests."""
        self.problem, self.progress, self._clock = problem, Progress(), clock
        self._registry, self._store = problem.registry, store
        self._ledger = Ledger(problem, store, search_id, device=device, proven=proven)
        self._settings = problem.spec.search
        self._front = RunningFront(problem.objectives)
        self._pruning = Pruning(problem)
        self._known: dict[str, Known] = {}
        self._confirmed: set[str] = set()
        self._orders = Orders(clock)
        self._again: dict[str, TrialRecord] = {}
        self._unread: set[int] = set()
        self._looks_next = 0.0
        records = store.trials(search_id)
        drawn = sum(record.kind == "search" for record in records)
        self._sampler = Sampler(
            problem.space,
            problem.objectives,
            self._settings,
            seed=problem.spec.seed,
            drawn=drawn,
            judged=Judged.of(problem),
        )
        self._draws = Draws(problem, self._sampler, self.progress)
        self._seconds = SecondTrials(problem, self._known, self._ledger.timing, self._sampler)
        for record in records:
            if record.digest == self._ledger.timing.reference and record.state in ("complete", "diverged", "failed"):
                self._ledger.timing.learn(store.trial(record.id))
        for record in records:
            self._take_up(record)

    @property
    def running(self) -> list[TrialOrder]:
        """The orders that were handed out and not answered."""
        return self._orders.running

    @property
    def busy(self) -> bool:
        """Whether there is something to wait for: a running order, or one that is tried again after a while."""
        return self._orders.busy

    @property
    def front(self) -> list[FrontPoint]:
        """The best candidates so far on the test split, by the first objective that is minimised."""
        return self._front.points()

    def prepare(self, survey: Survey) -> None:
        """Queues the references, and what is to be trained again because its source has changed.

        Raises `NothingFeasibleError` when the space has no candidate that can be trained; where a sample of the space
        had none, candidates are drawn until one is found or draws run out.
        """
        if not survey.trainable and not self.progress.trained:
            if survey.exhaustive:
                raise nothing_feasible(self.problem, survey.judged, survey.tightest, survey.refused)
            self._find_feasible()
        for arch in self.problem.references:
            if arch.digest not in self._known:
                self._begin("reference", arch, self.problem.judge(arch))
        self._train_again()
        self.progress.planned = self._orders.queued + max(0, self._settings.trials - self.progress.trained)

    def next(self) -> TrialOrder | Literal["wait", "done"]:
        """An order to train, "wait" until a running one has ended (or until asked again), or "done"."""
        if self._ledger.timing.news:
            self._release()
        if len(self._orders.running) >= self._settings.concurrency:
            return "wait"
        self._take_added()
        self._take_back()
        if not self._orders.queued and self._wants_more():
            self._draw()
        if not self._orders.queued and not self.busy and not self._wants_more():
            self._release(at_once=True)
            self._confirm()
            if not self._orders.queued:
                self._take_added(at_once=True)
        if (order := self._orders.hand_out()) is not None:
            self._ledger.set_state(order.trial, "running")
            return order
        return "wait" if self.busy or self._wants_more() else "done"

    def placed(self, order: TrialOrder, placement: Mapping[str, Any]) -> None:
        """A worker has the order, in this place."""
        self._ledger.placed(order.trial, placement)

    def measured(self, order: TrialOrder, run: Run, measurement: Mapping[str, Any]) -> None:
        """A run of the order gave `Measurement.to_json()`."""
        self._ledger.record(order, run, measurement)
        self._pruning.ended(order, run, measurement)

    def looked(
        self, order: TrialOrder, run: Run, looks: Looks, measurement: Mapping[str, Any] | None = None
    ) -> Stop | None:
        """All looks so far of a run of the order, and its measurement where it has ended: why the order is to be
        stopped, None where it is to go on. Which it is before `measured` has the measurement."""
        return self._pruning.looked(order, run, looks, measurement)

    def pruned(self, order: TrialOrder, stop: Stop) -> None:
        """The order was stopped; the sampler learns that it gave no values, which no sampler takes for bad ones."""
        self._ledger.prune(order.trial, stop)
        self._pruning.leave(order.trial)
        self.progress.count("pruned")
        self._answer(self._orders.answered(order), None)
        if order.kind != "confirm":
            self._known[order.arch.digest].state = "pruned"

    def finished(self, order: TrialOrder) -> tuple[str, str]:
        """Every run of the order is measured, or one has diverged; its state and reason. One that waits for the
        reference by which it is timed is closed, and the sampler told, when that has ended."""
        pending = self._orders.answered(order)
        ending = self._once_timed(pending, partial(self._finish, pending))
        return ("complete", WAITS) if ending is None else (ending.state, ending.reason)

    def _finish(self, pending: Pending) -> Ending:
        ending = self._close(pending.order.trial, _said(pending.order))
        self._answer(pending, ending.values)
        return ending

    def failed(self, order: TrialOrder, reason: str) -> None:
        """The order came to nothing; the search goes on."""
        self._ledger.set_state(order.trial, "failed", reason)
        self._pruning.leave(order.trial)
        self.progress.count("failed")
        self._answer(self._orders.answered(order), None)
        if order.arch.digest == self._ledger.timing.reference:
            self._ledger.timing.learn(self._store.trial(order.trial))

    def again(self, order: TrialOrder, reason: str) -> float | None:
        """The order's worker was lost: seconds until it is queued again, None where its retries are used up; then it
        is answered by `lost` or `failed`. It holds its place among the trials, so that no budget is lost with it."""
        self._ledger.lost(order.trial, reason)
        seconds = self._orders.put_off(order, self._settings.retries)
        self.progress.retried += seconds is not None
        return seconds

    def lost(self, order: TrialOrder) -> None:
        """The order's workers were lost again and again: it stays preempted, and a resumed search goes on with it."""
        self.progress.lost += 1
        self._answer(self._orders.answered(order), None)

    def stopped(self, reason: str) -> None:
        """Nothing runs any more: what was running or queued is preempted, and a resumed search goes on with it."""
        for order in self._orders.clear():
            self._ledger.set_state(order.trial, "preempted", reason)

    # -- drawing ---------------------------------------------------------------------------------------------

    def _wants_more(self) -> bool:
        return self.progress.trained < self._settings.trials and not self.progress.ended

    def _draw(self) -> None:
        if self._seconds.due(self.progress.trained) and (known := self._seconds.next()) is not None:
            arch = ArchSpec.from_json(self._store.trial(known.trial).arch, self._registry)
            self._begin("search", arch, known.verdict, parent=known.trial)
        for _ in range(DRAWS_A_CALL):
            if self._orders.queued or self._draws.spent():
                return
            self._decide(self._draws.next())

    def _find_feasible(self) -> None:
        """Draws until something can be trained: pure candidates first, among which is the cheapest, then others."""
        judged: list[tuple[ArchSpec, Verdict]] = []
        pure = itertools.islice(self.problem.space.pure(), PURE)
        while not self._orders.queued:
            params = next(pure, None)
            if params is None and self._draws.spent():
                near = tightest(judged, self._registry)
                raise nothing_feasible(self.problem, len(judged), near, refused(judged))
            proposal = self._draws.next(params)
            judged.append((proposal.arch, self._decide(proposal)))

    def _decide(self, proposal: Proposal) -> Verdict:
        """Refuses, answers or queues a proposal."""
        known = self._known.get(proposal.arch.digest)
        verdict = known.verdict if known is not None else self.problem.judge(proposal.arch)
        if not verdict.trainable:
            self._refuse(proposal, verdict, known)
        elif known is None:
            self._begin("search", proposal.arch, verdict, params=proposal.params, number=proposal.number)
        else:
            self._repeat(proposal, known)
        return verdict

    def _refuse(self, proposal: Proposal, verdict: Verdict, known: Known | None) -> None:
        if known is None or (known.state != "refused" and not known.repeat_recorded):
            trial = self._ledger.refuse(proposal.arch, verdict, proposal.params)
            self.progress.refused += 1
            if known is None:
                self._known[proposal.arch.digest] = Known(trial=trial, verdict=verdict, seeds=(), state="refused")
            else:
                known.repeat_recorded = True
        else:
            self.progress.repeated += 1
        self._sampler.refused(proposal.number, verdict)

    def _repeat(self, proposal: Proposal, known: Known) -> None:
        self.progress.repeated += 1
        if known.state != "measured" or known.values is None:
            self._sampler.failed(proposal.number)
            return
        if not known.repeat_recorded and not known.second:
            known.repeat_recorded = True
            opened = self._ledger.open("search", proposal.arch, known.verdict, known.seeds, params=proposal.params)
            self._close(opened.trial, f"repeat of trial {known.trial}: answered from the store")
        self._sampler.scored(proposal.number, known.values, known.verdict, seeds=len(known.seeds))

    def _take_back(self) -> None:
        """Queues the orders whose time has come to be tried again, in front; one that is measured already has ended."""
        for pending in reversed(self._orders.due()):
            pending.order = self._ledger.reopen(pending.order.trial)
            if pending.order.runs:
                self._orders.add_in_front(pending)
            else:
                self._once_timed(pending, partial(self._finish, pending))

    # -- what people add -------------------------------------------------------------------------------------

    def _take_added(self, *, at_once: bool = False) -> None:
        """Takes up the candidates that were added to the search since; looks now and then, or `at_once`."""
        if not at_once and self._clock() < self._looks_next:
            return
        for proposal in self._store.proposals(self._ledger.search_id, waiting=True):
            if proposal.id not in self._unread:
                self._add(proposal)
        self._looks_next = self._clock() + LOOK_SECONDS

    def _add(self, proposal: ProposalRecord) -> None:
        """Queues or refuses a candidate that was added; one that is known is linked to its trial, and one that cannot
        be read here waits for a driver that can."""
        try:
            arch = ArchSpec.from_json(proposal.arch, self._registry)
            known = self._known.get(arch.digest)
            verdict = known.verdict if known is not None else judge_candidate(arch, self.problem)
        except ArchsearchError as error:
            self._unread.add(proposal.id)
            _log.warning('"%s", which was added to the search, cannot be trained here: %s', proposal.pattern, error)
            return
        if known is None or known.state == "pruned":  # whoever adds it wants to know what it comes to
            self._bring_in(arch, verdict)
        self._store.link_proposal(proposal.id, self._known[arch.digest].trial)

    def _bring_in(self, arch: ArchSpec, verdict: Verdict) -> None:
        if verdict.trainable:
            parts = [(part.name, part.version, part.digest) for part in parts_beside(arch, self.problem)]
            if parts:
                self._store.add_parts(self._ledger.search_id, parts)
            queued = self._orders.queued
            self._begin("added", arch, verdict)
            self.progress.planned += self._orders.queued - queued
            return
        trial = self._ledger.refuse(arch, verdict, {}, kind="added")
        self._known[arch.digest] = Known(trial=trial, verdict=verdict, seeds=(), state="refused")
        self.progress.refused += 1

    # -- trials ----------------------------------------------------------------------------------------------

    def _begin(
        self,
        kind: str,
        arch: ArchSpec,
        verdict: Verdict,
        *,
        params: Mapping[str, Any] | None = None,
        number: int | None = None,
        parent: int | None = None,
    ) -> None:
        """Records a trial; queues what is left to train of it, or answers it from the store."""
        params = params or {}
        seeds = self.problem.confirm_seeds if kind == "confirm" else self.problem.search_seeds
        if kind == "search" and parent is not None:
            seeds = self.problem.seeds_with_second
        opened = self._ledger.open(kind, arch, verdict, seeds, params=params, parent=parent)
        if parent is None:
            self._known[arch.digest] = Known(trial=opened.trial, verdict=verdict, seeds=seeds)
            if kind != "search":
                self._sampler.beside(arch, verdict)
        pending = Pending(order=opened.order, number=number, params=params)
        self._pruning.enter(opened.order, verdict)
        if self._pruning.on and opened.reused_from:
            self._pruning.take(self._store.trial(opened.trial))
        if opened.order.runs:
            self._orders.add(pending)
            if kind == "search":
                self._draws.bore_fruit()
                self.progress.trained += 1
        else:
            self.progress.reused += 1
            source = ", ".join(map(str, opened.reused_from))
            said = _said(opened.order) or f"measured before, in trial {source}"
            self._once_timed(pending, partial(self._reuse, pending, said))

    def _reuse(self, pending: Pending, reason: str = "") -> Ending:
        """Closes a trial whose measurements were there; a reference that another search trained says nothing of this
        one's trials."""
        ending = self._close(pending.order.trial, reason, counts=pending.order.kind != "reference" or not reason)
        self._settle(pending, ending.values)
        return ending

    def _once_timed(self, pending: Pending, close: Callable[[], Ending]) -> Ending | None:
        """Closes a trial that is measured; None where it waits for the reference by which it is timed."""
        if self._ledger.waits(pending.order.trial):
            self._orders.hold(pending, close)
            return None
        return close()

    def _release(self, *, at_once: bool = False) -> None:
        """Closes the trials that need not wait any more, or `at_once` all that waited."""
        self._ledger.timing.news = False
        for pending, close in self._orders.held():
            if at_once:
                close()
            else:
                self._once_timed(pending, close)

    def _close(self, trial: int, reason: str = "", *, counts: bool = True) -> Ending:
        ending = self._ledger.close(trial, reason=reason)
        self._front.add(ending.result)
        if counts:
            self.progress.count(ending.state)
        return ending

    def _answer(self, pending: Pending, values: Mapping[str, float] | None) -> None:
        self.progress.finished += 1
        self._settle(pending, values)

    def _settle(self, pending: Pending, values: Mapping[str, float] | None) -> None:
        """What a trial gave goes to the record of its candidate and to the sampler."""
        if pending.order.kind == "confirm":
            return
        known = self._known[pending.order.arch.digest]
        if known.second:
            diverged = self._store.trial(pending.order.trial).state == "diverged"
            self._seconds.ended(pending.order.arch.digest, values, diverged=diverged)
            return
        known.state, known.values = ("failed" if values is None else "measured"), values
        if pending.number is not None:
            if values is None:
                self._sampler.failed(pending.number)
            else:
                self._sampler.scored(pending.number, values, known.verdict)
        elif pending.order.kind != "search":
            self._sampler.scored_beside(pending.order.arch, values, known.verdict, seeds=len(known.seeds))
        elif values is not None:
            self._sampler.replay(pending.params, values, known.verdict)

    def _confirm(self) -> None:
        """Queues fresh seeds for every candidate of the front that has none, until all of them have."""
        if not self.problem.confirm_seeds:
            return
        while not self._orders.queued:
            fresh = [point for point in self.front if point.digest not in self._confirmed]
            if not fresh:
                return
            self._confirm_timer()
            for point in fresh:
                if point.digest in self._confirmed:
                    continue
                self._confirmed.add(point.digest)
                arch = read_stored(self._store.trial(point.trial), self._registry)
                if arch is not None:
                    self._begin("confirm", arch, self.problem.judge(arch), parent=point.trial)
            self.progress.planned += self._orders.queued
            self.progress.confirming = True

    def _confirm_timer(self) -> None:
        """Queues the fresh seeds of the reference by which those of the front are timed."""
        arch = self.problem.timer
        if arch is not None and arch.digest in self._known and arch.digest not in self._confirmed:
            self._confirmed.add(arch.digest)
            verdict = self.problem.judge(arch)
            self._begin("confirm", arch, verdict, parent=self._known[arch.digest].trial)

    # -- resuming --------------------------------------------------------------------------------------------

    def _take_up(self, record: TrialRecord) -> None:
        """Puts a trial of an earlier run where it belongs; one that was preempted is queued again."""
        if record.state == "complete" or (self._pruning.on and record.state not in _TELL_NOTHING):
            record = self._store.trial(record.id)  # with its measurements
            self._pruning.take(record)
        self._front.add(self._ledger.result(record, record.state))
        if record.state == "superseded":
            if record.kind in ("search", "added"):
                self._again.setdefault(record.digest, record)
            return
        if record.kind == "search":
            self._draws.know(record.digest)
        else:
            self._confirmed |= {record.digest} if record.kind == "confirm" else set()
        untimed = record.state == "complete" and self._ledger.timing.waits(record)
        waits = record.state in ("queued", "running", "preempted")
        arch = read_stored(record, self._registry)
        if arch is None:
            self._leave(record, waits)
        elif waits or untimed:
            self._requeue(record)
        elif record.kind != "confirm":
            self._recall(record, arch)

    def _leave(self, record: TrialRecord, waits: bool) -> None:
        """One that cannot be read any more: what it measured counts and stays on the front, and the sampler, to which
        it is no candidate, does not learn of it."""
        if waits:
            self._ledger.set_state(record.id, "cancelled", "its architecture cannot be read any more")
        elif record.kind != "confirm":
            self._count(record)

    def _train_again(self) -> None:
        """Queues what was measured with other source, and what was added and is within a wider budget now, unless
        another trial has taken its place."""
        for digest, record in self._again.items():
            arch = read_stored(record, self._registry)
            if arch is None or digest in self._known:
                continue
            verdict = judge_candidate(arch, self.problem)
            if not verdict.trainable:
                continue
            if record.kind == "search":
                self._draws.know(digest)
            self._begin(record.kind, arch, verdict, params=record.params)

    def _requeue(self, record: TrialRecord) -> None:
        order = self._ledger.reopen(record.id)
        pending = Pending(order=order, params=record.params)
        if is_second(record) and record.digest in self._known:
            self._seconds.begun(record.digest)
        elif record.kind != "confirm":
            verdict = self.problem.judge(order.arch)
            self._known[record.digest] = Known(trial=record.id, verdict=verdict, seeds=record.seeds)
            if record.kind != "search":
                self._sampler.beside(order.arch, verdict)
        self.progress.trained += record.kind == "search"
        if order.runs:
            self._orders.add(pending)
        else:
            self._once_timed(pending, partial(self._reuse, pending))

    def _recall(self, record: TrialRecord, arch: ArchSpec) -> None:
        verdict = judge_candidate(arch, self.problem) if record.kind == "added" else self.problem.judge(arch)
        if record.state == "infeasible" and verdict.trainable:  # the budget is wider now: it may be drawn anew
            self._draws.forget(record.digest)
            if record.kind == "added":
                self._again.setdefault(record.digest, record)
            return
        values = self._ledger.values(record) if record.state == "complete" else None
        known = Known(trial=record.id, verdict=verdict, seeds=record.seeds, state="failed", values=values)
        if record.state == "infeasible":
            known.state = "refused"
            self.progress.refused += 1
        elif record.state == "pruned":
            known.state = "pruned"
        elif values is not None:
            known.state = "measured"
        before = self._known.setdefault(record.digest, known)
        second = is_second(record) and before is not known
        if before.state == "pruned":
            self._known[record.digest] = known
        elif second:
            ended = record.state in ("complete", "diverged")
            self._seconds.recalled(record.digest, before, values, measured=ended)
        self._count(record)
        seeds = max(1, len(record.seeds))
        if record.kind != "search":
            self._sampler.scored_beside(arch, values, verdict, seeds=seeds)
        elif not second:
            self._sampler.replay(record.params, values, verdict, seeds=seeds)

    def _count(self, record: TrialRecord) -> None:
        trained = record.state in ("pruned", "diverged", "failed") or any(
            measured.reused_from is None for measured in record.measurements
        )
        self.progress.trained += record.kind == "search" and trained
        if trained or record.kind == "search":
            self.progress.count(record.state)


def _said(order: TrialOrder) -> str:
    """What is said of a trial that is complete, beside its figures."""
    return f"with the seeds of trial {order.parent} and one more" if is_second(order) else ""
