"""Evaluated: what evaluators find of the model that a training chose, on validation and on test."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
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
    fit_anew: Callable[[], Fit],
    weights: Mapping[str, Any],
    taken: Mapping[str, Mapping[str, float]],
    *,
    progress: float,
) -> dict[str, dict[str, float]]:
    """The evaluators' numbers by split, of a model with these `weights`, which `fit_anew` makes for each of them and
    each split; `taken` are the numbers that there are already, by split. Raises `ForeignCodeError` for what an
    evaluator raises, and `PluginError` for a number that is wrong."""
    found: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
    for evaluator in evaluators:
        for split in SPLITS:
            fit = fit_anew()
            fit.load_weights(weights)
            found[split] |= _numbers(evaluator, arch, fit, split, {**taken[split], **found[split]}, progress=progress)
            del fit  # before the next one is made
    return found


def _numbers(
    evaluator: Evaluator,
    arch: ArchSpec,
    fit: Fit,
    split: Literal["validation", "test"],
    taken: Mapping[str, float],
    *,
    progress: float,
) -> dict[str, float]:
    judge, model = fit.judge, fit.model

    def scores(batch: Batch) -> tuple[Any, Any]:
        judge.to_eval(model)
        return judge.scores(model, batch, split, progress)

    trained = Trained(split=split, seed=fit.seed, device=fit.device, judged=judge.by, progress=progress, scores=scores)
    judge.to_eval(model)
    task, what = judge.task.task, f'evaluator "{evaluator.name}" ({listing(evaluator.metrics)})'
    with _undisturbed(), torch.no_grad():
        torch.manual_seed(fit.seed)
        with foreign_code(f"{what} on {task.label}", "evaluate"), memory_told(what):
            return checked_numbers(evaluator, evaluator.evaluate(arch, model, task, trained), taken)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Sets back what foreign code may change of the process, in which other models are trained afterwards: generators
    of random numbers, torch's default dtype and its threads."""
    drawn, counted = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(counted)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
