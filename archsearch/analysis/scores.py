"""Scores: what the seeds of one architecture gave on a task, and what they say beside a baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import Any

from archsearch.analysis.differences import Difference
from archsearch.analysis.objectives import Direction, format_tokens
from archsearch.analysis.rates import Rates, rates_of
from archsearch.analysis.speed import SHARES, Timed
from archsearch.errors import SpecError
from archsearch.recipe import Recipe
from archsearch.units import format_quantity

LEVEL = 0.05
"""A difference is told as one where chance alone makes as large a one in any of the comparisons less often than so."""

BETTER, WORSE, NOISE, UNTOLD = "better", "worse", "within noise", "nothing tells"
"""What a difference from the baseline says."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One architecture on one metric of a task: its value on test by seed, their mean and standard error, and what the
    mean is above the baseline's (None for the baseline itself).

    ``primary`` says whether it is the metric that the task's learning rates are chosen by, on validation; any other is
    that of the same models, and ``rates`` are those of the primary one. Of a metric of speed, ``budget`` is the tokens
    of a training: a seed for which they did not suffice has no value (NaN), and the architecture no mean.

    ``p`` is the chance of so large a difference without any, corrected for the number of comparisons (Holm); NaN where
    nothing tells. ``diverged`` are seeds of which no rate gave a model: they leave no mean. ``steps`` are the optimiser
    steps that the recipe gives a run, and ``train_flops`` what they take by the cost model: forward and backward, at
    one learning rate. ``solved`` are seeds whose training ended before them, at the recipe's ``stop_at``.
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
    primary: bool = True
    budget: float | None = None
    solved: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The task for its primary metric, else the metric as objectives name it: "niah.accuracy@2x"."""
        return self.task if self.primary else f"{self.task}.{self.metric}"

    def show(self, value: float, *, signed: bool = False) -> str:
        """A value of this metric, or a difference of two, as people read it; "none" for what is not a number."""
        if not isfinite(value):
            return "none"
        sign = "-" if value < 0 else "+" if signed else ""
        size = abs(value)
        if self.budget is not None:
            return sign + format_quantity(size, unit="")
        return sign + (f"{size:.3f}" if size == 0 or 0.001 <= size < 1000 else f"{size:.3g}")

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
        if lacking and self.budget is not None:
            yield f"seed {', '.join(map(str, lacking))} {format_tokens(2 * self.budget, self.budget)}"
        elif lacking:
            yield f"seed {', '.join(map(str, lacking))} has no finite {self.metric}"
        if not self.primary:
            return
        if self.rates.fragile:
            yield "fragile: other rates keep less than half of its gain"
        if self.rates.at_end:
            yield f"best at the {self.rates.at_end} rate"

    @property
    def whole(self) -> Mapping[int, float]:
        """The values by seed; none where a seed diverged, as the mean of the others would flatter."""
        return {} if self.diverged else self.values


def scores_of(
    runs: Iterable[tuple[str, Mapping[str, Any]]],
    further: Mapping[str, Mapping[str, Direction]] | None = None,
    speeds: Mapping[str, Mapping[str, Timed]] | None = None,
) -> dict[str, Score]:
    """The scores of one architecture by `Score.name`, from its runs: each task and `Measurement.to_json()`, one a seed.

    Each task's primary metric is followed by those that ``further`` names of it, with the direction in which each is
    better. Those of speed are taken from ``speeds``, by task and metric, and are left out where these have none.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for task, payload in runs:
        by_task.setdefault(task, []).append(payload)
    found = []
    for task, payloads in by_task.items():
        score = _score(task, payloads)
        found.append(score)
        for metric, direction in (further or {}).get(task, {}).items():
            timed = (speeds or {}).get(task, {}).get(metric)
            if metric not in SHARES:
                found.append(_other(score, metric, direction, _values(payloads, metric)))
            elif timed is not None:
                found.append(replace(_other(score, metric, direction, timed.by_seed), budget=timed.budget))
    return {score.name: score for score in found}


def _score(task: str, payloads: Sequence[Mapping[str, Any]]) -> Score:
    metric, direction, chance = (payloads[0][key] for key in ("metric", "direction", "chance"))
    values = _values(payloads, metric)
    diverged = tuple(int(one["seed"]) for one in payloads if one["status"] != "complete")
    steps, flops = _training(payloads[0])
    mean, error = (nan, nan) if diverged else _mean_and_error(values)
    return Score(
        task=task,
        metric=metric,
        direction=direction,
        values=values,
        mean=mean,
        error=error,
        diverged=diverged,
        against=None,
        p=nan,
        rates=rates_of(payloads, metric, direction, chance),
        steps=steps,
        train_flops=flops,
        solved=tuple(int(one["seed"]) for one in payloads if _ended_early(one)),
    )


def _other(primary: Score, metric: str, direction: Direction, values: Mapping[int, float]) -> Score:
    """The score on another metric of the models that the primary one has chosen."""
    mean, error = (nan, nan) if primary.diverged else _mean_and_error(values)
    return replace(primary, metric=metric, direction=direction, values=values, mean=mean, error=error, primary=False)


def _values(payloads: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    return {int(one["seed"]): _number(one["test"].get(metric)) for one in payloads if one["status"] == "complete"}


def _mean_and_error(values: Mapping[int, float]) -> tuple[float, float]:
    known = list(values.values())
    if not known or not all(map(isfinite, known)):
        return nan, nan
    return fmean(known), stdev(known) / sqrt(len(known)) if len(known) > 1 else nan


def _ended_early(payload: Mapping[str, Any]) -> bool:
    """Whether a run has reached its recipe's ``stop_at`` before its last step."""
    given, taken = _training(payload)[0], payload.get("steps")
    return payload.get("solved_at") is not None and given is not None and isinstance(taken, int) and taken < given


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
