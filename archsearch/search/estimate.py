"""The estimate: how long a search takes, judged by trainings of its tasks that a database holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from archsearch.search.problem import Problem
from archsearch.storage import MeasurementRecord, Store, TrialQuery

SEARCHES, TRIALS = 20, 20
"""Newest searches that are looked into, and newest complete trials of each."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """``trainings`` of candidates and references, without those that confirm the front, and what they take at most.

    ``seconds`` are those of the whole search, ``training_seconds`` of one training of each task in turn; both are None
    where ``unknown`` names tasks of which no training on this backbone is known. ``known`` counts the trainings that
    it is judged by.
    """

    trainings: int
    known: int
    unknown: tuple[str, ...]
    training_seconds: float | None
    seconds: float | None


def estimate(problem: Problem, store: Store | None) -> Estimate:
    """The estimate by the trainings in `store`: tokens a second of the same task on a backbone of the same width and
    depth, and the tokens of the recipe, or of the steps that an architecture has of its own, which a training that
    solves its task early does not take."""
    spec = problem.spec
    archs = spec.search.trials + len(problem.references)
    trainings = archs * len(problem.search_seeds) * len(problem.tasks)
    names = {key: task.name for key, task in problem.tasks.items()}
    rates = _rates(problem, store)
    known = sum(len(rates.get(name, ())) for name in dict.fromkeys(names.values()))
    unknown = tuple(key for key, name in names.items() if not rates.get(name))
    if unknown:
        return Estimate(trainings=trainings, known=known, unknown=unknown, training_seconds=None, seconds=None)
    each = 0.0
    for key, task in problem.tasks.items():
        tokens = _steps(problem, key) * spec.recipe.batch_size * task.seq_len
        each += tokens * len(spec.recipe.learning_rates) / median(rates[names[key]])
    total = each * archs * len(problem.search_seeds) / min(spec.search.concurrency, archs)
    return Estimate(
        trainings=trainings,
        known=known,
        unknown=(),
        training_seconds=each / len(problem.tasks),
        seconds=total,
    )


def _steps(problem: Problem, task: str) -> float:
    """Optimiser steps of a task at one learning rate: the recipe's, or where architectures have their own the mean over
    candidates and references."""
    own = problem.spec.recipe.steps_for(problem.tasks[task].seq_len)
    if problem.matching is None or problem.matching.match != "train_flops":
        return float(own)
    steps = [row.steps[task] for row in problem.matching.rows[: problem.spec.search.trials]]
    steps += [problem.steps_of(arch)[task] for arch in problem.references]
    return sum(steps) / len(steps)


def _rates(problem: Problem, store: Store | None) -> Mapping[str, list[float]]:
    """Tokens a second by task, of trainings on a backbone of the same width and depth."""
    found: dict[str, list[float]] = {}
    if store is None:
        return found
    wanted = {task.name for task in problem.tasks.values()}
    for one in recent_measurements(store):
        name, rate = one.task.partition(":")[0], one.payload.get("tokens_per_second")
        if name not in wanted or not _alike(problem, one.payload.get("arch")):
            continue
        if isinstance(rate, int | float) and rate > 0:
            found.setdefault(name, []).append(float(rate))
    return found


def _alike(problem: Problem, arch: object) -> bool:
    model = arch.get("model") if isinstance(arch, Mapping) else None
    layers = arch.get("layers") if isinstance(arch, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(layers, list | tuple):
        return False
    return model.get("d_model") == problem.spec.model.d_model and len(layers) == problem.spec.model.n_layers


def recent_measurements(store: Store) -> Iterator[MeasurementRecord]:
    """What the newest complete trials of the newest searches were trained for, the newest first."""
    query = TrialQuery(states=("complete",), order="number", descending=True, limit=TRIALS)
    for search in store.searches()[-SEARCHES:][::-1]:
        for trial in store.trial_page(search.name, query).rows["trial"]:
            yield from (one for one in store.trial(int(trial)).measurements if one.reused_from is None)
