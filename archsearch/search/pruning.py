"""Pruning: what the rule of early stopping is told of a search's trials, and which of them it may stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archsearch.search.ledger import Run, TrialOrder, is_second
from archsearch.search.problem import Problem, Verdict
from archsearch.search.stopping import Looks, Stop, Stopping
from archsearch.storage import TrialRecord


class Pruning:
    """The rule of a search where its spec has one; else nothing is kept, and nothing is stopped.

    References, second seeds and candidates that somebody added are told of and never stopped, and neither are
    confirmations unless the spec says so. What a second seed gave is its candidate's.
    """

    def __init__(self, problem: Problem) -> None:
        table = problem.spec.search.early_stop
        self._problem, self._recipe = problem, problem.spec.training
        self._rule = None if table is None else Stopping(table, problem.objectives, problem.tasks)
        self._trial_of: dict[str, int] = {}
        self._first_of: dict[int, int] = {}
        self._kinds = {"search", "confirm"} if table is not None and table.confirmations else {"search"}

    @property
    def on(self) -> bool:
        """Whether the spec has a rule."""
        return self._rule is not None

    def enter(self, order: TrialOrder, verdict: Verdict) -> None:
        """A trial is to be trained, or was."""
        if is_second(order) and order.arch.digest in self._trial_of:
            self._first_of[order.trial] = self._trial_of[order.arch.digest]
        else:
            self._enter(order.trial, order.arch.digest, verdict.costs, stands=verdict.trainable)

    def take(self, record: TrialRecord) -> None:
        """A trial as it is stored, with its measurements; one that only repeats another tells nothing more."""
        held = self._trial_of.get(record.digest, record.id)
        if self._rule is None or (record.parent is None and held != record.id):
            return
        if is_second(record) and held != record.id:
            self._first_of[record.id] = held
        else:
            self._enter(record.id, record.digest, record.costs, stands=record.feasible and record.exercised)
        for measured in record.measurements:
            self._end(self._first_of.get(record.id, record.id), Run(measured.task, measured.seed), measured.payload)
        if record.state in ("pruned", "failed", "diverged"):
            self.leave(record.id)

    def _enter(self, trial: int, digest: str, costs: Mapping[str, float], *, stands: bool) -> None:
        if self._rule is not None:
            self._trial_of.setdefault(digest, trial)
            self._rule.enter(trial, costs, stands=stands)

    def looked(
        self, order: TrialOrder, run: Run, looks: Looks, measurement: Mapping[str, Any] | None = None
    ) -> Stop | None:
        """A run of an order was looked at, or has ended with a measurement: why the trial is to be stopped, if it
        is."""
        trial = self._first_of.get(order.trial, order.trial)
        if self._rule is None or trial not in self._rule:
            return None
        place = (run.task, run.seed)
        if looks:
            self._rule.looked(trial, place, looks, self._steps(run.task))
        if measurement is not None:
            self._end(trial, run, measurement)
        told = bool(looks) or measurement is not None
        return self._rule.judge(trial, place) if told and order.kind in self._kinds and not is_second(order) else None

    def ended(self, order: TrialOrder, run: Run, measurement: Mapping[str, Any]) -> None:
        """A run of an order has ended with a measurement, also its last one, which nothing is stopped by."""
        trial = self._first_of.get(order.trial, order.trial)
        if self._rule is not None and trial in self._rule:
            self._end(trial, run, measurement)

    def leave(self, trial: int) -> None:
        """A trial came to nothing, or was stopped: another of its candidate speaks for itself."""
        if self._rule is not None and trial not in self._first_of:
            self._rule.leave(trial)
            self._trial_of = {digest: held for digest, held in self._trial_of.items() if held != trial}

    def _end(self, trial: int, run: Run, measurement: Mapping[str, Any]) -> None:
        assert self._rule is not None
        if measurement["status"] != "complete":
            self._rule.leave(trial)
            return
        place, steps = (run.task, run.seed), self._steps(run.task)
        looks = looks_of(measurement, steps // len(self._recipe.learning_rates))
        self._rule.ended(trial, place, measurement["validation"], looks, steps)

    def _steps(self, task: str) -> int:
        """Of a run over all learning rates."""
        return self._recipe.steps_for(self._problem.tasks[task].seq_len) * len(self._recipe.learning_rates)


def looks_of(measurement: Mapping[str, Any], per_rate: int) -> Looks:
    """The looks that a measurement has kept: those of the rate that was chosen, and the end of every other one."""
    metric = measurement["metric"]
    better = max if measurement["direction"] == "maximize" else min
    entries = measurement.get("sweep") or [{"learning_rate": measurement["learning_rate"], "validation": {}}]
    found: list[tuple[int, float]] = []
    before: list[float] = []
    for index, entry in enumerate(entries):
        final = entry["validation"].get(metric)
        if entry["learning_rate"] == measurement["learning_rate"]:
            looks = [(int(look["step"]), look.get(metric)) for look in measurement.get("curve", ())]
        else:
            looks = [(per_rate, final)]
        known = [(step, value) for step, value in looks if value is not None and math.isfinite(value)]
        found += [(index * per_rate + step, better([*before, value])) for step, value in known]
        before += [] if final is None else [float(final)]
    return found
