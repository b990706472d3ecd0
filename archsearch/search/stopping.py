"""Early stopping: which candidates are beyond hope of the front before their training has ended, as pure logic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from archsearch.analysis.objectives import Objective
from archsearch.search.problem import RECALL
from archsearch.search.tables.search import EarlyStopTable
from archsearch.tasks import Task

FEWEST = 6
"""Trainings of a task that must have ended before one is cut short, and degrees of freedom of a noise that is known."""

_SHOWN = 5
"""Dominating trials that a reason names."""

Looks = Sequence[tuple[int, float]]
"""(step, value of the task's metric) of each look at validation; steps count over all learning rates, and the value is
the best of the rates that have ended and of this look."""

Place = tuple[str, int]
"""A task, by the name that metrics carry, and a seed."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a candidate is stopped: at ``step`` of ``total_steps`` of a task and a seed, dominated by ``trials``.

    ``looks`` is its curve up to there; a run that has ended by itself has none, as it is measured.
    """

    task: str
    seed: int
    step: int
    total_steps: int
    trials: tuple[int, ...]
    looks: Looks = ()

    @property
    def reason(self) -> str:
        """In a sentence, in which trials are named as an import finds and renumbers them."""
        where = f"{self.task}, seed {self.seed}"
        done = self.step >= self.total_steps
        at = f"after {where}" if done else f"at step {self.step} of {self.total_steps} of {where}"
        more = len(self.trials) - _SHOWN
        others = f" and {more} others" if more > 1 else " and another" if more == 1 else ""
        return f"stopped {at}: dominated by trial {', '.join(map(str, self.trials[:_SHOWN]))}{others}"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A measured objective: the least of its ``parts``, each a metric of a task, times ``sign``: more is better."""

    name: str
    parts: tuple[tuple[str, str], ...]
    sign: float


@dataclass(kw_only=True)
class Run:
    """One task and seed of a candidate: its looks, and what it gave in the end by metric."""

    looks: Looks = ()
    total_steps: int = 0
    final: Mapping[str, float] | None = None


@dataclass(kw_only=True)
class Contender:
    """A candidate as the rule sees it: ``costs`` turned so that less is better. One that does not ``stand``, as it is
    over budget or came to nothing, dominates nobody."""

    trial: int
    costs: tuple[float, ...]
    stands: bool = True
    runs: dict[Place, Run] = field(default_factory=dict)


class Stopping:
    """The rule, and all that it knows of a search.

    A candidate is stopped where ``others`` candidates, each no worse in any cost, are better in every measured
    objective beyond noise, on the tasks and seeds that it was trained on so far, even if it were to gain as much from
    here on as the training that gained most. Nothing is known of an objective before a seed of its tasks has ended or
    is past its grace, and nothing is stopped before something is known of each.
    """

    def __init__(self, table: EarlyStopTable, objectives: Sequence[Objective], tasks: Mapping[str, Task]) -> None:
        self._table = table
        self._metrics = {name: task.metric for name, task in tasks.items()}
        self._signs = {name: 1.0 if task.direction == "maximize" else -1.0 for name, task in tasks.items()}
        self._costs = [objective for objective in objectives if objective.is_cost]
        self._aims = [aim_of(objective, tasks) for objective in objectives if not objective.is_cost]
        self._contenders: dict[int, Contender] = {}
        self._ended: dict[str, list[Run]] = {name: [] for name in tasks}
        self._gains: dict[tuple[str, int], tuple[int, int, float]] = {}
        self._noise: dict[str, tuple[int, float | None, float]] = {}
        self._count = 0

    def __contains__(self, trial: int) -> bool:
        return trial in self._contenders

    def enter(self, trial: int, costs: Mapping[str, float], *, stands: bool = True) -> None:
        """A candidate whose ``costs``, by the objectives' metrics, are known and which is to be trained."""
        if trial not in self._contenders:
            turned = tuple(cost.sign * costs.get(cost.metric, math.nan) for cost in self._costs)
            self._contenders[trial] = Contender(trial=trial, costs=turned, stands=stands)

    def leave(self, trial: int) -> None:
        """The candidate came to nothing, or was stopped: it dominates nobody."""
        if trial in self._contenders:
            self._contenders[trial].stands = False

    def looked(self, trial: int, place: Place, looks: Looks, total_steps: int) -> None:
        """All looks of a run so far, which is ``total_steps`` long."""
        run = self._contenders[trial].runs.setdefault(place, Run())
        run.looks, run.total_steps = list(looks), total_steps

    def ended(
        self, trial: int, place: Place, final: Mapping[str, float], looks: Looks = (), total_steps: int = 0
    ) -> None:
        """A run has ended with these metrics on validation; of ``looks`` those count that are later than what was told
        while it ran, and ``total_steps`` where none were told."""
        run = self._contenders[trial].runs.setdefault(place, Run())
        if run.final is None:
            told = run.looks[-1][0] if run.looks else -1
            run.final, run.looks = dict(final), [*run.looks, *(look for look in looks if look[0] > told)]
            run.total_steps = run.total_steps or total_steps
            self._ended[place[0]].append(run)
            self._count += 1

    def judge(self, trial: int, place: Place) -> Stop | None:
        """What stops a candidate after its latest look at, or the end of, the run at `place`; None for nothing."""
        mine = self._contenders[trial]
        hoped = {aim.name: self._hoped(mine, aim) for aim in self._aims}
        if not self._aims or not all(hoped.values()):
            return None
        trials = tuple(
            other.trial
            for other in self._contenders.values()
            if other is not mine and other.stands and _no_dearer(other, mine) and self._beats(other, hoped)
        )
        if len(trials) < self._table.others:
            return None
        run = mine.runs[place]
        step = run.total_steps if run.final is not None else run.looks[-1][0]
        looks = run.looks if run.final is None else ()
        task, seed = place
        return Stop(task=task, seed=seed, step=step, total_steps=run.total_steps, trials=trials, looks=looks)

    def _hoped(self, mine: Contender, aim: Aim) -> dict[int, float]:
        """The most that a candidate may still give by seed, of those seeds of which anything is known. The least of
        several parts is no more than any of those that are known."""
        found: dict[int, float] = {}
        for (task, seed), run in mine.runs.items():
            for metric in (metric for name, metric in aim.parts if name == task):
                value = self._most(run, task, metric)
                if value is not None:
                    found[seed] = min(found.get(seed, math.inf), aim.sign * value)
        return found

    def _most(self, run: Run, task: str, metric: str) -> float | None:
        """The final value of a run, or the most that it may come to."""
        if run.final is not None:
            value = run.final.get(metric)
            return value if value is not None and math.isfinite(value) else None
        if metric != self._metrics[task] or not run.looks:
            return None
        step, value = run.looks[-1]
        gain = self._gain(task, step) if step >= self._table.grace * run.total_steps else None
        return None if gain is None or not math.isfinite(value) else value + self._signs[task] * gain

    def _gain(self, task: str, step: int) -> float | None:
        """The most that a training of `task` which has ended gained after `step`, None where too few have ended."""
        ended = self._ended[task]
        seen, known, most = self._gains.get((task, step), (0, 0, 0.0))
        for run in ended[seen:]:
            before, after = value_at(run.looks, step), (run.final or {}).get(self._metrics[task], math.nan)
            if before is not None and math.isfinite(before) and math.isfinite(after):
                known, most = known + 1, max(most, self._signs[task] * (after - before))
        self._gains[task, step] = len(ended), known, most
        return most if known >= FEWEST else None

    def _beats(self, other: Contender, hoped: Mapping[str, Mapping[int, float]]) -> bool:
        for aim in self._aims:
            leads = []
            for seed, value in hoped[aim.name].items():
                theirs = final_of(other, aim, seed)
                if theirs is None:
                    return False
                leads.append(theirs - value)
            if not sum(leads) / len(leads) > self._margin(aim, len(leads)):
                return False
        return True

    def _margin(self, aim: Aim, seeds: int) -> float:
        """By how much the mean over `seeds` must be better: noise of a difference of two means, or a share of the range
        of all values where the noise is not known."""
        spread, extent = self._spread(aim)
        return self._table.margin * extent if spread is None else self._table.noise * spread * math.sqrt(2.0 / seeds)

    def _spread(self, aim: Aim) -> tuple[float | None, float]:
        """The standard deviation over seeds, pooled over the candidates, None where too few were repeated, and the
        range of all values."""
        count, spread, extent = self._noise.get(aim.name, (-1, None, 0.0))
        if count != self._count:
            groups = [finals_of(one, aim) for one in self._contenders.values()]
            freedom = sum(len(group) - 1 for group in groups if group)
            squares = sum((value - sum(group) / len(group)) ** 2 for group in groups for value in group)
            spread = math.sqrt(squares / freedom) if freedom >= FEWEST else None
            values = [value for group in groups for value in group]
            extent = max(values) - min(values) if values else 0.0
            self._noise[aim.name] = self._count, spread, extent
        return spread, extent


def aim_of(objective: Objective, tasks: Mapping[str, Task]) -> Aim:
    """The parts of a measured objective: "recall" is the least over the recall tasks."""
    if objective.name == RECALL:
        parts = tuple((name, task.metric) for name, task in tasks.items() if task.recall)
    else:
        task, _, metric = objective.name.rpartition(".")
        parts = ((task, metric),)
    return Aim(name=objective.name, parts=parts, sign=-objective.sign)


def value_at(looks: Looks, step: int) -> float | None:
    """The latest value at `step`, None before the first look."""
    return next((value for at, value in reversed(looks) if at <= step), None)


def final_of(one: Contender, aim: Aim, seed: int) -> float | None:
    """An objective's value with a seed, more being better; None where a part of it has not ended."""
    values = []
    for task, metric in aim.parts:
        run = one.runs.get((task, seed))
        value = None if run is None or run.final is None else run.final.get(metric)
        if value is None or not math.isfinite(value):
            return None
        values.append(aim.sign * value)
    return min(values)


def finals_of(one: Contender, aim: Aim) -> list[float]:
    """An objective's values by seed, of those that have ended."""
    seeds = dict.fromkeys(seed for _, seed in one.runs)
    found = (final_of(one, aim, seed) for seed in seeds)
    return [value for value in found if value is not None]


def _no_dearer(other: Contender, mine: Contender) -> bool:
    return all(theirs <= cost for theirs, cost in zip(other.costs, mine.costs, strict=True))
