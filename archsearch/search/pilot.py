"""The pilot: how long a search will take, from a few real training steps of what it begins with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean

from archsearch.arch import ArchSpec
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.tasks import Task
from archsearch.training import Evaluation, Recipe

STEPS = 4
CANDIDATES = 3
START_SECONDS = 8.0
"""What starting Ray and its first workers takes."""


def estimate_seconds(problem: Problem, registry: Registry, archs: Sequence[ArchSpec], trials: int) -> float:
    """Seconds that `trials` trials take at most on this machine, judged by the first few of `archs`.

    At most, because a trial stops early when it has solved its task.
    """
    spec = problem.spec
    times = [
        sum(_run_seconds(arch, task, spec.recipe, registry) for task in problem.tasks.values())
        for arch in archs[:CANDIDATES]
    ]
    if not times:
        return 0.0
    return START_SECONDS + fmean(times) * spec.recipe.seeds * trials / min(spec.search.concurrency, trials)


def _run_seconds(arch: ArchSpec, task: Task, recipe: Recipe, registry: Registry) -> float:
    """One task and seed over all learning rates: the steps, the looks at validation, and the test."""
    short = recipe.model_copy(
        update={"steps": STEPS, "tokens": None, "eval_every": STEPS, "learning_rates": recipe.learning_rates[:1]}
    )
    task.evaluation("validation")
    task.evaluation("test")
    evaluation = Evaluation(arch, task, short, 0, registry=registry)
    evaluation.advance(0.0)
    begun = time.perf_counter()
    while not evaluation.done:
        evaluation.advance(60.0)
    trained = time.perf_counter()
    evaluation.measurement()
    test_seconds = time.perf_counter() - trained
    rows = {split: len(batch) for split in ("validation", "test") for batch in [task.evaluation(split)[""].tokens]}
    look_seconds = test_seconds * rows["validation"] / rows["test"]
    step_seconds = max(0.0, trained - begun - look_seconds) / (STEPS - 1)
    steps = recipe.steps_for(task.seq_len)
    looks = -(-steps // recipe.eval_every)
    return (steps * step_seconds + looks * look_seconds) * len(recipe.learning_rates) + test_seconds
