"""Equal training FLOPs: the optimiser steps that an architecture takes for as many as the baseline's training takes."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.recipe import MAX_STEPS, Recipe
from archsearch.tasks import Task

FLOPS_TOLERANCE = 0.05
"""Training FLOPs within this share of the baseline's count as equal, which few whole steps may miss."""


def match_steps(
    arch: ArchSpec, baseline: ArchSpec, tasks: Mapping[str, Task], recipe: Recipe, costs: CostModel
) -> dict[str, int]:
    """The steps of each task, rounded, at least one, by which a training of `arch` takes the FLOPs of one of `baseline`
    by the recipe's own; raises `SpecError` for more than are taken."""
    found = {}
    for name, task in tasks.items():
        own, its = (step_flops(one, task, recipe, costs) for one in (arch, baseline))
        steps = max(1, round(recipe.steps_for(task.seq_len) * its / own))
        if steps > MAX_STEPS:
            raise SpecError(f"{steps} steps of {name} take the baseline's FLOPs, and at most {MAX_STEPS} are taken")
        found[name] = steps
    return found


def run_flops(
    arch: ArchSpec, steps: Mapping[str, int], tasks: Mapping[str, Task], recipe: Recipe, costs: CostModel
) -> float:
    """FLOPs of one training of each task, at one learning rate: forward and backward, without looks at validation."""
    return sum(steps[name] * step_flops(arch, task, recipe, costs) for name, task in tasks.items())


def step_flops(arch: ArchSpec, task: Task, recipe: Recipe, costs: CostModel) -> float:
    """FLOPs of one optimiser step, with the task's own vocabulary and length."""
    model = arch.model.model_copy(update={"vocab_size": task.vocab_size})
    sized = ArchSpec(model=model, layers=arch.layers)
    return recipe.batch_size * costs.cost(sized, task.seq_len).train_flops


def with_steps(recipe: Recipe, steps: int, seq_len: int) -> Recipe:
    """The recipe with so many steps, the same one where it takes them already."""
    if recipe.steps_for(seq_len) == steps:
        return recipe
    return recipe.model_copy(update={"steps": steps, "tokens": None})
