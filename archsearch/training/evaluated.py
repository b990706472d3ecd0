"""Evaluated: what evaluators find of the model that a training chose, on validation and on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from archsearch.arch import ArchSpec
from archsearch.errors import foreign_code, listing
from archsearch.evaluator import Evaluator, Trained, checked_numbers
from archsearch.model.foreign import memory_told
from archsearch.tasks import Batch
from archsearch.training.fit import Fit

SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


def evaluated(
    evaluators: Sequence[Evaluator],
    arch: ArchSpec,
    fit: Fit,
    weights: Mapping[str, Any],
    taken: Mapping[str, Mapping[str, float]],
    *,
    progress: float,
) -> dict[str, dict[str, float]]:
    """The evaluators' numbers by split, of a model with these `weights`, which each is given anew; `taken` are the
    numbers that there are already, by split. Raises `ForeignCodeError` for what an evaluator raises, and `PluginError`
    for a number that is wrong."""
    found: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
    for evaluator in evaluators:
        for split in SPLITS:
            numbers = _numbers(evaluator, arch, fit, weights, split, progress)
            found[split] |= checked_numbers(evaluator, numbers, {**taken[split], **found[split]})
    return found


def _numbers(
    evaluator: Evaluator,
    arch: ArchSpec,
    fit: Fit,
    weights: Mapping[str, Any],
    split: Literal["validation", "test"],
    progress: float,
) -> object:
    judge, model = fit.judge, fit.model

    def scores(batch: Batch) -> tuple[Any, Any]:
        judge.to_eval(model)
        return judge.scores(model, batch, split, progress)

    trained = Trained(split=split, seed=fit.seed, device=fit.device, judged=judge.by, progress=progress, scores=scores)
    fit.load_weights(weights)
    judge.to_eval(model)
    task, what = judge.task.task, f'evaluator "{evaluator.name}" ({listing(evaluator.metrics)})'
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(fit.seed)
        with foreign_code(f"{what} on {task.label}", "evaluate"), memory_told(what):
            return evaluator.evaluate(arch, model, task, trained)
