"""The ledger: what a search writes of its trials into the store, and what it takes from there instead of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from archsearch.analysis.objectives import Objective
from archsearch.analysis.running_front import TrialResult
from archsearch.arch import ArchSpec
from archsearch.kernels.forms import Use
from archsearch.search.problem import RECALL, Problem, Verdict
from archsearch.search.speed import Timing, is_speed
from archsearch.search.stopping import Stop
from archsearch.search.trial_store import TrialStore
from archsearch.storage import MetricValue, NewTrial, TrialRecord
from archsearch.tasks import Task
from archsearch.training import form_of, measurement_key
from archsearch.training.forms import of_arch

SPLITS = ("validation", "test")
WAITS = "measured: waits for the reference by which it is timed"
"""Of a trial that has nothing left to be trained."""


@dataclass(frozen=True)
class Run:
    """One measurement to make: a task, by the name that the search gives it, and a seed."""

    task: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrialOrder:
    """An order to train a trial; ``runs`` are the measurements that are not in the store."""

    trial: int
    kind: str
    arch: ArchSpec
    pattern: str
    runs: tuple[Run, ...]
    parent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A trial that was recorded, the order that is left of it, and the trials that gave what the store had already."""

    trial: int
    order: TrialOrder
    reused_from: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a trial ended; ``values`` are its objectives on validation, None when it gave none, and ``result`` those on
    the test split, for the front."""

    state: str
    reason: str
    values: Mapping[str, float] | None
    result: TrialResult


def is_second(trial: TrialOrder | TrialRecord) -> bool:
    """Whether a trial trains a candidate that is known with a second seed: it has what its parent measured too."""
    return trial.kind == "search" and trial.parent is not None


class Ledger:
    """Writes the trials of one search."""

    def __init__(
        self,
        problem: Problem,
        store: TrialStore,
        search_id: int,
        *,
        device: str = "cpu",
        proven: frozenset[Use] = frozenset(),
    ) -> None:
        """``device`` is the kind that workers train on, and ``proven`` the rows of kernels that they take: results of
        other kinds and forms are not taken for theirs."""
        self._problem, self._registry, self._store, self.search_id = problem, problem.registry, store, search_id
        self._device, self._proven = device, proven
        searched = problem.seeds_with_second if problem.spec.search.second_seeds else problem.search_seeds
        seeds = max(len(searched), len(problem.confirm_seeds))
        self.timing = Timing(problem.objectives, problem.timer, problem.tasks, seeds)

    def open(
        self,
        kind: str,
        arch: ArchSpec,
        verdict: Verdict,
        seeds: Sequence[int],
        *,
        params: Mapping[str, Any],
        parent: int | None = None,
    ) -> Opened:
        """Records a trial as queued, and what the store has of it already; what is missing becomes its order. What a
        `parent` has measured with one of the seeds is its own."""
        trial = self._add(kind, "queued", arch, verdict, seeds, params=params, parent=parent)
        held = {} if parent is None else _by_run(self._store.trial(parent))
        missing: list[Run] = []
        sources: list[int] = []
        diverged = False
        for seed in seeds:
            for name, task in self._problem.tasks.items():
                found = held.get((name, seed)) or self._store.find_measurement(self._key(arch, name, task, seed))
                if found is None:
                    missing.append(Run(name, seed))
                else:
                    self._write(trial, name, found[1], reused_from=found[0])
                    sources.append(found[0])
                    diverged |= found[1]["status"] == "diverged"
        runs = () if diverged else tuple(missing)
        order = TrialOrder(
            trial=trial, kind=kind, arch=arch, pattern=self._problem.pattern(arch), runs=runs, parent=parent
        )
        return Opened(trial=trial, order=order, reused_from=tuple(dict.fromkeys(sources)))

    def refuse(self, arch: ArchSpec, verdict: Verdict, params: Mapping[str, Any], *, kind: str = "search") -> int:
        """Records a candidate that is not trained, with the reasons."""
        reason = "; ".join(verdict.reasons)
        return self._add(kind, "infeasible", arch, verdict, (), params=params, reason=reason)

    def reopen(self, trial: int) -> TrialOrder:
        """Queues a trial of an earlier run, or of a lost worker, again; what it has measured stays measured."""
        record = self._store.trial(trial)
        done = {(measured.task, measured.seed) for measured in record.measurements}
        runs = tuple(
            Run(name, seed) for seed in record.seeds for name in self._problem.tasks if (name, seed) not in done
        )
        self._store.set_trial_state(record.id, "queued")
        return TrialOrder(
            trial=record.id,
            kind=record.kind,
            arch=ArchSpec.from_json(record.arch, self._registry),
            pattern=record.pattern,
            runs=runs,
            parent=record.parent,
        )

    def record(self, order: TrialOrder, run: Run, measurement: Mapping[str, Any]) -> None:
        """Writes one measurement of an order as soon as it is made."""
        self._write(order.trial, run.task, measurement)

    def close(self, trial: int, *, reason: str = "") -> Ending:
        """Ends a trial whose measurements are all in: complete, or diverged."""
        record = self._store.trial(trial)
        self.timing.learn(record)
        diverged = [measured for measured in record.measurements if measured.status == "diverged"]
        if diverged:
            first = diverged[0]
            text = f"{first.task}, seed {first.seed}: {first.payload['reason']}"
            self._store.set_trial_state(trial, "diverged", text)
            return Ending(state="diverged", reason=text, values=None, result=self.result(record, "diverged"))
        reason = "; ".join(filter(None, (reason, self.timing.lacking(record))))
        metrics = [*self._composites(record), *self.timing.metrics(record, SPLITS)]
        self._store.set_trial_state(trial, "complete", reason, metrics=metrics)
        result = self.result(record, "complete")
        return Ending(state="complete", reason=reason, values=self.values(record), result=result)

    def prune(self, trial: int, stop: Stop) -> None:
        """Ends a trial that is stopped: what it has measured stays measured, and the run under way is kept as far as
        its curve goes."""
        metric = self._problem.tasks[stop.task].metric
        curve = [
            MetricValue(
                name=f"{stop.task}.{metric}", split="progress", value=value, task=stop.task, seed=stop.seed, step=step
            )
            for step, value in stop.looks
        ]
        self._store.set_trial_state(trial, "pruned", stop.reason, metrics=curve)

    def waits(self, trial: int) -> bool:
        """Whether a trial that is measured waits for another's training, by which an objective is timed; it says so."""
        if not self.timing.reference or not self.timing.waits(self._store.trial(trial)):
            return False
        self.set_state(trial, "queued", WAITS)
        return True

    def result(self, record: TrialRecord, state: str) -> TrialResult:
        """What a front needs of a trial that is in `state` now; of a complete one `record` has the measurements."""
        values = self.values(record, "test") if state == "complete" else None
        return TrialResult(
            trial=record.id,
            number=record.number,
            digest=record.digest,
            pattern=record.pattern,
            kind=record.kind,
            state=state,
            feasible=record.feasible,
            exercised=record.exercised,
            values=values or {},
        )

    def values(self, record: TrialRecord, split: str = "validation") -> dict[str, float] | None:
        """A measured trial's objective values by name, the mean over its seeds on `split`; NaN where one lacks."""
        if not record.measurements or any(measured.status != "complete" for measured in record.measurements):
            return None
        return {objective.name: self._value(objective, record, split) for objective in self._problem.objectives}

    def _value(self, objective: Objective, record: TrialRecord, split: str) -> float:
        if objective.is_cost:
            return record.costs.get(objective.metric, math.nan)
        if objective.name == RECALL:
            by_seed = {found.seed: found.value for found in self._composites(record) if found.split == split}
        elif is_speed(objective.metric):
            timed = self.timing.metrics(record, (split,))
            by_seed = {found.seed: found.value for found in timed if found.name == objective.metric}
        else:
            task, _, metric = objective.name.rpartition(".")
            mine = [measured for measured in record.measurements if measured.task == task]
            by_seed = {measured.seed: measured.payload[split].get(metric) for measured in mine}
        return _mean([by_seed.get(seed) for seed in record.seeds])

    def placed(self, trial: int, placement: Mapping[str, Any]) -> None:
        """Notes where a trial runs."""
        self._store.set_placement(trial, placement)

    def lost(self, trial: int, reason: str) -> None:
        """Notes that a trial's worker was lost; what it has measured stays measured."""
        self._store.lose_worker(trial, reason)

    def set_state(self, trial: int, state: str, reason: str = "") -> None:
        """Sets a trial's state and reason."""
        self._store.set_trial_state(trial, state, reason)

    def _key(self, arch: ArchSpec, name: str, task: Task, seed: int) -> str:
        recipe = self._problem.recipe_of(arch, name)
        form = form_of(self._device, of_arch(self._proven, arch, self._registry))
        evaluators = self._problem.evaluators.get(name, ())
        return measurement_key(
            arch, task, recipe, seed, self._registry, device=self._device, form=form, evaluators=evaluators
        )

    def _add(
        self,
        kind: str,
        state: str,
        arch: ArchSpec,
        verdict: Verdict,
        seeds: Sequence[int],
        *,
        params: Mapping[str, Any],
        parent: int | None = None,
        reason: str = "",
    ) -> int:
        return self._store.add_trial(
            self.search_id,
            NewTrial(
                kind=kind,
                state=state,
                arch=arch.to_json(),
                digest=arch.digest,
                pattern=self._problem.pattern(arch),
                params=params,
                seeds=list(seeds),
                costs=verdict.costs,
                violations={str(violation.term): violation.excess for violation in verdict.violations},
                reason=reason,
                parent=parent,
                unexercised=[found.to_json() for found in verdict.unexercised],
            ),
        )

    def _write(self, trial: int, task: str, measurement: Mapping[str, Any], *, reused_from: int | None = None) -> None:
        metrics = {split: {f"{task}.{name}": value for name, value in measurement[split].items()} for split in SPLITS}
        self._store.add_measurement(trial, measurement, metrics, task=task, reused_from=reused_from)

    def _composites(self, record: TrialRecord) -> list[MetricValue]:
        """The smallest primary metric over the recall tasks, for each seed and split that has them all."""
        recall = {name: task.metric for name, task in self._problem.tasks.items() if task.recall}
        by_run = {(measured.task, measured.seed): measured.payload for measured in record.measurements}
        found = []
        for seed in record.seeds:
            payloads = {name: by_run.get((name, seed)) for name in recall}
            for split in SPLITS:
                values = [payload[split].get(recall[name]) for name, payload in payloads.items() if payload]
                if recall and len(values) == len(recall) and None not in values:
                    found.append(MetricValue(name=RECALL, split=split, value=min(values), seed=seed))
        return found


def _by_run(record: TrialRecord) -> dict[tuple[str, int], tuple[int, dict[str, Any]]]:
    """What a trial has measured, by task and seed, each with the trial that gave it."""
    return {
        (measured.task, measured.seed): (measured.reused_from or record.id, dict(measured.payload))
        for measured in record.measurements
    }


def _mean(values: Sequence[float | None]) -> float:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers and len(numbers) == len(values) else math.nan
