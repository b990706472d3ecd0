"""What a ladder costs, rung by rung, before it is begun: training FLOPs, and hours by the speed of trainings before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.search.estimate import recent_measurements
from archsearch.search.ladder.drawn import model_on_rung
from archsearch.search.ladder.rungs import carried_references, probe, probes
from archsearch.search.problem import Problem
from archsearch.storage import Store
from archsearch.training.teacher_arch import teacher_layer

Range = tuple[float, float]
"""From the least to the most."""


@dataclass(frozen=True, kw_only=True)
class RungCost:
    """One rung: its sizes, how many are trained of candidates and references together, trainings (one a task and seed,
    all learning rates in it), training FLOPs, and hours (None where nothing tells)."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    seeds: int
    trained: tuple[int, int]
    trainings: tuple[int, int]
    flops: Range
    hours: float | None


@dataclass(frozen=True, kw_only=True)
class LadderCost:
    """All rungs, from the least to the most that they take.

    FLOPs lie between those of the cheapest and of the dearest of some architectures of the space, each of its tokens
    counted as trained, teachers among them, and at the most all are confirmed by fresh seeds: early ends make it less,
    trials that are tried again more. ``known`` counts the trainings by whose FLOPs a second the hours of the most are
    judged.
    """

    rungs: tuple[RungCost, ...]
    known: int

    @property
    def flops(self) -> Range:
        """Training FLOPs of all rungs."""
        return sum(one.flops[0] for one in self.rungs), sum(one.flops[1] for one in self.rungs)

    @property
    def hours(self) -> float | None:
        """Hours of all rungs at most, None where nothing tells."""
        found = [one.hours for one in self.rungs]
        return None if None in found else sum(one for one in found if one is not None)

    def beyond(self, max_flops: float | None, max_hours: float | None) -> list[str]:
        """The limits that it may exceed, a clause each; hours that nobody can tell may be any number."""
        said = []
        if max_flops is not None and self.flops[1] > max_flops:
            said.append(f"up to {self.flops[1]:.3g} training FLOPs, above ladder.max_flops = {max_flops:.3g}")
        if max_hours is not None and self.hours is None:
            said.append(f"an unknown time, with ladder.max_hours = {max_hours:g}")
        elif max_hours is not None and self.hours is not None and self.hours > max_hours:
            said.append(f"up to {self.hours:.3g} hours, above ladder.max_hours = {max_hours:g}")
        return said


def ladder_cost(problem: Problem, store: Store | None) -> LadderCost:
    """The cost of a search and its rungs; raises `SpecError` where a rung cannot be as it is written."""
    speeds = _speeds(problem, store)
    speed = median(speeds) if speeds else None
    spec = problem.spec
    found = [_rung(problem, problem, (spec.search.trials,) * 2, len(problem.references), speed)]
    below = spec.search.trials
    for rung, table in enumerate(spec.rung, start=2):
        at = probe(problem, rung)
        references = len(carried_references(problem, at))
        below = min(below, table.most)
        found.append(_rung(problem, at, (min(table.keep, below), below), references, speed))
    return LadderCost(rungs=tuple(found), known=len(speeds))


def _rung(problem: Problem, at: Problem, kept: tuple[int, int], references: int, speed: float | None) -> RungCost:
    model, spec = at.space.model, at.spec
    each = [training_flops(arch, at) for arch in probes(problem, at)]
    if not each:
        raise SpecError(f"{spec.name}: no architecture of the space can stand at this size: change the rung's sizes")
    low, high = kept[0] + references, kept[1] + references
    runs, most = len(at.search_seeds), len(at.search_seeds) + len(at.confirm_seeds)
    taught = _teachers(problem, at)
    flops = (runs * (low * min(each) + taught[0]), most * (high * max(each) + taught[1]))
    abreast = min(spec.search.concurrency, high)
    return RungCost(
        name=spec.name,
        d_model=model.d_model,
        n_layers=at.space.n_layers,
        n_heads=model.n_heads,
        seeds=runs,
        trained=(low, high),
        trainings=(low * runs * len(at.tasks), high * most * len(at.tasks)),
        flops=flops,
        hours=None if speed is None else flops[1] / speed / abreast / 3600.0,
    )


def _teachers(problem: Problem, at: Problem) -> Range:
    """FLOPs of training the models that teach, with one seed: one, or one for every backbone that may be drawn."""
    backbones = [at.space.model]
    if problem.space.backbones.listed:
        drawn = problem.space.backbones.all
        backbones = [model_on_rung(one.values, problem.space.model, at.space.model) for one in drawn]
    layer = teacher_layer(at.spec.recipe, problem.registry)
    if layer is None:
        return 0.0, 0.0
    each = [training_flops(ArchSpec(model=one, layers=(layer,) * at.space.n_layers), at) for one in backbones]
    return min(each), sum(each)


def training_flops(arch: ArchSpec, problem: Problem) -> float:
    """FLOPs of training `arch` on every task with one seed and each learning rate, to the last step."""
    costs, recipe, total = CostModel(problem.registry), problem.spec.recipe, 0.0
    for task in problem.tasks.values():
        model = arch.model.model_copy(update={"vocab_size": task.vocab_size})
        one = costs.cost(ArchSpec(model=model, layers=arch.layers), task.seq_len).train_flops
        sequences = recipe.batch_size * recipe.steps_for(task.seq_len) * len(recipe.learning_rates)
        total += one * sequences
    return total


def _speeds(problem: Problem, store: Store | None) -> list[float]:
    """Training FLOPs a second, of trainings of the same tasks at any size."""
    wanted = {task.name for task in problem.tasks.values()}
    records = () if store is None else recent_measurements(store)
    found = [_speed(one.payload) for one in records if one.task.partition(":")[0] in wanted]
    return [speed for speed in found if speed > 0]


def _speed(payload: Mapping[str, Any]) -> float:
    costs = payload.get("costs")
    flops = costs.get("train_flops") if isinstance(costs, Mapping) else None
    parts: Sequence[Any] = (flops, payload.get("tokens_per_second"), payload.get("seq_len"))
    if not all(isinstance(part, int | float) and part > 0 for part in parts):
        return 0.0
    return float(parts[0] * parts[1] / parts[2])
