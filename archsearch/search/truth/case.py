"""Cases: problems that are posed on a table of ground truth, each with its true front and what that dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.hypervolume import volume
from archsearch.analysis.objectives import Objective, Values, signs
from archsearch.arch import ArchSpec
from archsearch.costs import MEASURES
from archsearch.errors import SpecError, listing, nearest
from archsearch.search.problem import RECALL, Problem, Verdict
from archsearch.search.spec import SearchSpec
from archsearch.search.speed import is_speed
from archsearch.search.truth.table import TruthTable

_MARGIN = 0.1
"""How far the reference point lies beyond the worst value, as a share of the range."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem on a table: some of its tasks, and objectives over them.

    ``tasks`` maps the name of a task in this problem to its name in the table. ``seeds`` are those of which all of the
    tasks' columns are whole. Losses are objectives turned so that less is better, in the problem's order.
    """

    table: TruthTable
    problem: Problem
    tasks: Mapping[str, str]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, table: TruthTable, objectives: Sequence[str]) -> Case:
        """The case of objectives by their names in the table's spec; raises `SpecError` for one that it cannot pose."""
        tasks = _tasks(table, objectives)
        seeds = table.seeds(tasks)
        if not seeds:
            lacking = listing(f"{task}, seed {seed}" for task, seed in table.missing if task in tasks)
            raise SpecError(f"{listing(objectives)} cannot be posed yet: the table lacks rows of {lacking}")
        spec = SearchSpec.from_dict(_spec(table, tasks, objectives))
        problem = Problem.of(spec, table.problem.registry)
        labels = {task.label: name for name, task in table.problem.tasks.items()}
        names = {name: labels[task.label] for name, task in problem.tasks.items()}
        case = cls(table=table, problem=problem, tasks=names, seeds=seeds)
        if not len(case._whole_losses):
            raise SpecError(
                f"{listing(objectives)} cannot be posed: no architecture within the budget has a value of each with "
                f"every seed of the table ({listing(map(str, seeds))}): name other objectives"
            )
        return case

    @property
    def name(self) -> str:
        """Its objectives, by commas."""
        return ",".join(objective.name for objective in self.problem.objectives)

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What is known of each architecture before training, by its digest."""
        return {arch.digest: self.problem.judge(arch) for arch in self.table.archs}

    @cached_property
    def feasible(self) -> tuple[ArchSpec, ...]:
        """The architectures that a search may train."""
        return tuple(arch for arch in self.table.archs if self.verdicts[arch.digest].trainable)

    def losses(self, digests: Sequence[str], seeds: Sequence[int], split: str) -> Values:
        """`[n, n_objectives]`: means over seeds on a split; infinite where a training diverged."""
        turned = signs(self.problem.objectives)
        found = np.array(
            [[self._value(digest, one, seeds, split) for one in self.problem.objectives] for digest in digests]
        )
        found = found.reshape(len(digests), len(turned)) * turned
        return np.where(np.isfinite(found), found, np.inf)

    def _value(self, digest: str, objective: Objective, seeds: Sequence[int], split: str) -> float:
        if objective.is_cost:
            return self.verdicts[digest].costs[objective.metric]
        return fmean(self._measured(digest, objective.name, seed, split) for seed in seeds)

    def _measured(self, digest: str, name: str, seed: int, split: str) -> float:
        if name == RECALL:
            parts = [
                (task, f"{self.problem.tasks[task].metric}") for task in self.tasks if self.problem.tasks[task].recall
            ]
            return min(self._metric(digest, task, metric, seed, split) for task, metric in parts)
        task, _, metric = name.rpartition(".")
        return self._metric(digest, task, metric, seed, split)

    def _metric(self, digest: str, task: str, metric: str, seed: int, split: str) -> float:
        row = self.table.row(digest, self.tasks[task], seed)
        found = row.validation if split == "validation" else row.test
        return found.get(metric, math.nan) if row.status == "complete" else math.nan

    @cached_property
    def _whole_losses(self) -> Values:
        """`[n, n_objectives]`: means over all seeds on the test split of what is feasible and never diverged."""
        values = self.losses([arch.digest for arch in self.feasible], self.seeds, "test")
        found: Values = values[np.isfinite(values).all(axis=1)]
        return found

    @cached_property
    def edge(self) -> Values:
        """The reference point of every hypervolume of the case, as losses: the worst mean over all seeds on the test
        split of what is feasible, a tenth of the range further."""
        values = self._whole_losses
        worst, spread = values.max(axis=0), np.ptp(values, axis=0)
        edge: Values = worst + _MARGIN * np.where(spread > 0, spread, np.maximum(np.abs(worst), 1.0))
        return edge

    def volume(self, losses: Values) -> float:
        """What rows of losses dominate up to the reference point."""
        return volume(losses[(losses < self.edge).all(axis=1)], self.edge)

    def true_volume(self, seeds: Sequence[int], split: str) -> float:
        """What all of the feasible architectures dominate."""
        return self._truth(tuple(seeds), split)[0]

    def true_front(self, seeds: Sequence[int], split: str = "test") -> tuple[ArchSpec, ...]:
        """The feasible architectures that no other one dominates."""
        return self._truth(tuple(seeds), split)[1]

    @cached_property
    def _truths(self) -> dict[tuple[tuple[int, ...], str], tuple[float, tuple[ArchSpec, ...]]]:
        return {}

    def _truth(self, seeds: tuple[int, ...], split: str) -> tuple[float, tuple[ArchSpec, ...]]:
        """The true volume and front, worked out once: every search of a study asks for them."""
        if (seeds, split) not in self._truths:
            values = self.losses([arch.digest for arch in self.feasible], seeds, split)
            kept = non_dominated(values) & np.isfinite(values).all(axis=1)
            front = tuple(arch for arch, stands in zip(self.feasible, kept, strict=True) if stands)
            self._truths[seeds, split] = self.volume(values), front
        return self._truths[seeds, split]


def default_objectives(table: TruthTable) -> list[tuple[str, ...]]:
    """Each task alone, the worst of the recall tasks and all tasks, against the costs of the table's spec, as far as
    the table has the tasks."""
    objectives = table.problem.objectives
    costs = [objective.name for objective in objectives if objective.is_cost]
    metrics = {task: f"{task}.{table.problem.tasks[task].metric}" for task in table.tasks}
    recall = [task for task in table.tasks if table.problem.tasks[task].recall]
    found = [(metric, *costs) for metric in metrics.values()]
    if len(recall) > 1:
        found.append((RECALL, *costs))
    if len(metrics) > 1:
        found.append((*metrics.values(), *costs))
    return [names for names in found if table.seeds(_tasks(table, names))]


def _tasks(table: TruthTable, objectives: Sequence[str]) -> list[str]:
    """The tasks, by their names in the table, that objectives need."""
    known = table.problem.tasks
    needed = [name.rpartition(".")[0] for name in objectives if name != RECALL and not _is_cost(name)]
    timed = next((name for name in objectives if is_speed(name)), None)
    if timed is not None:
        raise SpecError(f'"{timed}" is timed by trainings, and a table has none: name a metric of one of its tasks')
    for name in objectives:
        if name != RECALL and not _is_cost(name) and name.rpartition(".")[0] not in known:
            offered = [RECALL, *MEASURES, *(f"{task}.{known[task].metric}" for task in known)]
            raise SpecError(
                f'"{name}" is no objective of the table{nearest(name, offered)}: name a cost, or a metric of one of '
                f"its tasks: {listing(known)}"
            )
    recall = [task for task in known if known[task].recall] if RECALL in objectives else []
    found = [task for task in known if task in (*needed, *recall)]
    if not found:
        raise SpecError(f"{listing(objectives)}: name an objective that is measured, such as one of {listing(known)}")
    return found


def _is_cost(name: str) -> bool:
    return name.partition("@")[0] in MEASURES


def _spec(table: TruthTable, tasks: Sequence[str], objectives: Sequence[str]) -> dict[str, object]:
    whole = table.problem
    spec = whole.spec.to_json()
    labels = list(whole.tasks)
    maximized = {objective.name for objective in whole.objectives if objective.direction == "maximize"}
    better = {f"{task}.": whole.tasks[task].direction for task in tasks}

    def more_is_better(name: str) -> bool:
        if _is_cost(name):
            return name in maximized
        return name == RECALL or better[f"{name.rpartition('.')[0]}."] == "maximize"

    return {
        **spec,
        "tasks": [spec["tasks"][labels.index(task)] for task in tasks],
        "recipe": {**spec["recipe"], "seeds": 1},
        "search": {**spec["search"], "references": False, "confirm_seeds": 0},
        "objectives": {
            **spec["objectives"],
            "maximize": [name for name in objectives if more_is_better(name)],
            "minimize": [name for name in objectives if not more_is_better(name)],
        },
    }
