"""Scores: what the seeds of one architecture gave on a task, and what they say beside a baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import Any

from archsearch.analysis.differences import Difference
from archsearch.analysis.rates import Rates, rates_of
from archsearch.errors import SpecError
from archsearch.recipe import Recipe

LEVEL = 0.05
"""A difference is told as one where chance alone makes as large a one in any of the comparisons less often than so."""

BETTER, WORSE, NOISE, UNTOLD = "better", "worse", "within noise", "nothing tells"
"""What a difference from the baseline says."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One architecture on one task: the primary metric on test by seed, its mean and standard error, and what the mean
    is above the baseline's (None for the baseline itself).

    ``p`` is the chance of so large a difference without any, corrected for the number of comparisons (Holm); NaN where
    nothing tells. ``diverged`` are seeds of which no rate gave a model: they leave no mean. ``steps`` are the optimiser
    steps that the recipe gives a run, and ``train_flops`` what they take by the cost model: forward and backward, at
    one learning rate.
    """

    task: str
    metric: str
    direction: str
    values: Mapping[int, float]
    mean: float
    error: float
    diverged: tuple[int, ...]
    against: Difference | None
    p: float
    rates: Rates
    steps: int | None = None
    train_flops: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the difference is larger than its noise."""
        return self.p < LEVEL

    @property
    def better(self) -> bool:
        """Whether it is clear, and the right way."""
        assert self.against is not None
        return self.clear and (self.against.mean > 0) == (self.direction == "maximize")

    @property
    def verdict(self) -> str:
        """What the difference from the baseline says, in words."""
        if self.against is None or not isfinite(self.p):
            return UNTOLD
        return (BETTER if self.better else WORSE) if self.clear else NOISE

    def notes(self) -> Iterator[str]:
        """What must be known beside the figures, a clause each."""
        if self.diverged:
            yield f"seed {', '.join(map(str, self.diverged))} diverged"
        lacking = [seed for seed, value in self.values.items() if not isfinite(value)]
        if lacking:
            yield f"seed {', '.join(map(str, lacking))} has no finite {self.metric}"
        if self.rates.fragile:
            yield "fragile: good at one rate only"
        if self.rates.at_end:
            yield f"best at the {self.rates.at_end} rate"

    @property
    def whole(self) -> Mapping[int, float]:
        """The values by seed; none where a seed diverged, as the mean of the others would flatter."""
        return {} if self.diverged else self.values


def scores_of(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Score]:
    """The scores of one architecture by task, from its runs: each task and `Measurement.to_json()`, one a seed."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for task, payload in runs:
        by_task.setdefault(task, []).append(payload)
    return {task: _score(task, payloads) for task, payloads in by_task.items()}


def _score(task: str, payloads: Sequence[Mapping[str, Any]]) -> Score:
    metric, direction, chance = (payloads[0][key] for key in ("metric", "direction", "chance"))
    values = {int(one["seed"]): _number(one["test"].get(metric)) for one in payloads if one["status"] == "complete"}
    diverged = tuple(int(one["seed"]) for one in payloads if one["status"] != "complete")
    known = list(values.values())
    steps, flops = _training(payloads[0])
    whole = bool(known) and not diverged and all(map(isfinite, known))
    return Score(
        task=task,
        metric=metric,
        direction=direction,
        values=values,
        mean=fmean(known) if whole else nan,
        error=stdev(known) / sqrt(len(known)) if whole and len(known) > 1 else nan,
        diverged=diverged,
        against=None,
        p=nan,
        rates=rates_of(payloads, metric, direction, chance),
        steps=steps,
        train_flops=flops,
    )


def _training(payload: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """The optimiser steps of a run and their FLOPs, None of a record that does not say."""
    recipe, costs = payload.get("recipe"), payload.get("costs")
    if not isinstance(recipe, Mapping) or not recipe or not payload.get("seq_len"):
        return None, None
    try:
        read = Recipe.read(recipe)
        steps = read.steps_for(payload["seq_len"])
    except SpecError:  # of another version, whose keys are not known here
        return None, None
    each = costs.get("train_flops") if isinstance(costs, Mapping) else None
    return steps, None if each is None else float(each) * steps * read.batch_size


def _number(value: Any) -> float:
    return nan if value is None else float(value)
