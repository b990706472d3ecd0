"""Speed of learning: how many tokens a training needs to come as far as full attention, or half as far, from curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from statistics import fmean
from typing import Any

from archsearch.analysis.objectives import format_tokens
from archsearch.errors import SpecError
from archsearch.recipe import Recipe

SHARES: Mapping[str, float] = {"tokens_to_half": 0.5, "tokens_to_95": 0.95}
"""The metrics of speed, and the share of full attention's gain that each asks for."""

LEAST_GAIN = 0.05
"""A reference that gains less than this share of what there is to gain has learnt nothing that others could be timed
by: the way from chance to 1 where more is better, else what its first look has."""

LEAST_LOOKS = 5
"""Looks at validation that a training must have for the way between them to tell anything."""

REFERENCE = "full"
"""The mixer whose training sets the targets, in every layer."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a training shall reach: ``value`` of the primary metric, to be maximised or minimised; ``start`` is the
    metric before the first step, that of chance."""

    value: float
    start: float
    maximize: bool

    def reached_by(self, value: float) -> bool:
        """Whether a value of the metric is as good."""
        return value >= self.value if self.maximize else value <= self.value


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How soon a training reached a target: ``tokens`` read by then, None where all ``budget`` tokens of its recipe did
    not suffice."""

    tokens: float | None
    budget: float

    def censored(self, seeds: int) -> float:
        """The number that stands for it: its tokens, or for who never arrived ``seeds + 1`` budgets, so that a mean
        over at most so many seeds is above the budget exactly where one of them did not arrive."""
        return (seeds + 1) * self.budget if self.tokens is None else self.tokens


def looks_of(recipe: Recipe, seq_len: int) -> int:
    """How often a training on sequences of `seq_len` tokens looks at validation."""
    return -(-recipe.steps_for(seq_len) // recipe.eval_every)


def target_of(reference: Mapping[str, Any], share: float) -> Target | None:
    """The target that a training of full attention sets, from its `Measurement.to_json()`: that share of what it gains
    from chance to its end on validation, or where less is better from its first look, as every model is soon better
    than chance there. It lies no higher than the recipe's ``stop_at``, where others stop. None where it has diverged,
    has no looks, or has gained less than `LEAST_GAIN`."""
    looks = _looks(reference)
    if reference["status"] != "complete" or not looks:
        return None
    maximize, chance = reference["direction"] == "maximize", float(reference["chance"])
    end = looks[-1][1]
    first, room = (chance, 1.0 - chance) if maximize else (looks[0][1], abs(looks[0][1]))
    gain = end - first if maximize else first - end
    if not gain > 0 or gain < LEAST_GAIN * room:
        return None
    value = first + share * (end - first)
    stop_at = reference["recipe"].get("stop_at")
    if maximize and stop_at:
        value = min(value, float(stop_at))
    return Target(value=value, start=chance, maximize=maximize)


def speed_of(measurement: Mapping[str, Any], target: Target) -> Speed | None:
    """When a training first reached `target`, from its `Measurement.to_json()`, between two looks by the straight line
    from one to the other, the first of which is chance at step 0. None where it has no curve to tell from, as where it
    has diverged."""
    looks = _looks(measurement)
    if measurement["status"] != "complete" or not looks:
        return None
    recipe = Recipe.read(measurement["recipe"])
    per_step = float(recipe.batch_size * measurement["seq_len"])
    budget = per_step * recipe.steps_for(measurement["seq_len"])
    before = (0.0, target.start)
    for step, value in looks:
        if target.reached_by(value):
            rise = value - before[1]
            part = (target.value - before[1]) / rise if rise else 1.0
            return Speed(tokens=per_step * (before[0] + min(1.0, max(0.0, part)) * (step - before[0])), budget=budget)
        before = (step, value)
    return Speed(tokens=None, budget=budget)


def _looks(measurement: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Step and primary metric of each look at validation, up to one that is not a number."""
    found = []
    for entry in measurement["curve"]:
        step, value = entry.get("step"), entry.get(measurement["metric"])
        if step is None or value is None or not isfinite(value):
            break
        found.append((float(step), float(value)))
    return found


def all_full(arch: Mapping[str, Any]) -> bool:
    """Whether every layer of a stored architecture is the mixer `REFERENCE`."""
    layers = arch.get("layers") or ()
    return bool(layers) and all(layer.get("mixer") == REFERENCE for layer in layers)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """How soon the seeds of an architecture reached a target on a task: the mean ``tokens`` of those that did (None for
    none), how many ``arrived`` of ``seeds``, and the ``budget`` in tokens; ``by_seed`` has the tokens of each seed, NaN
    of one that never arrived."""

    tokens: float | None
    arrived: int
    seeds: int
    budget: float
    by_seed: Mapping[int, float] = field(default_factory=dict, compare=False)

    @property
    def told(self) -> str:
        """The tokens in words: of how many seeds where not of all."""
        if self.tokens is None:
            return format_tokens(2 * self.budget, self.budget)
        text = format_tokens(self.tokens, self.budget)
        return text if self.arrived == self.seeds else f"{text} ({self.arrived} of {self.seeds} seeds)"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


Run = tuple[str, Mapping[str, Any], str, Mapping[str, Any]]
"""A digest, the stored architecture, the task, and `Measurement.to_json()` of one seed."""


def timed(runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, Timed]]:
    """By digest and task, the metrics of `SHARES` of architectures that were trained beside full attention, each seed
    timed by full attention's own of that seed.

    Left out is what cannot be told: where full attention was not trained, or has learnt nothing, and where a training
    has diverged or has looked at validation less than `LEAST_LOOKS` times.
    """
    timers = {(task, payload["seed"]): payload for _, arch, task, payload in reversed(runs) if all_full(arch)}
    found: dict[tuple[str, str], dict[str, Timed]] = {}
    by_task: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for digest, _, task, payload in runs:
        by_task.setdefault((digest, task), []).append(payload)
    for (digest, task), payloads in by_task.items():
        for metric, share in SHARES.items():
            told = _timed([(payload, timers.get((task, payload["seed"]))) for payload in payloads], share)
            if told is not None:
                found.setdefault((digest, task), {})[metric] = told
    return found


def _timed(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]], share: float) -> Timed | None:
    speeds: dict[int, Speed] = {}
    for payload, timer in pairs:
        target = None if timer is None or not _looked_often(payload) else target_of(timer, share)
        speed = None if target is None else speed_of(payload, target)
        if speed is None:
            return None
        speeds[int(payload["seed"])] = speed
    arrived = [speed.tokens for speed in speeds.values() if speed.tokens is not None]
    return Timed(
        tokens=fmean(arrived) if arrived else None,
        arrived=len(arrived),
        seeds=len(speeds),
        budget=max(speed.budget for speed in speeds.values()),
        by_seed={seed: nan if speed.tokens is None else speed.tokens for seed, speed in speeds.items()},
    )


def _looked_often(payload: Mapping[str, Any]) -> bool:
    if not (payload.get("recipe") and payload.get("seq_len") and payload.get("curve")):
        return False
    try:
        recipe = Recipe.read(payload["recipe"])
        return looks_of(recipe, payload["seq_len"]) >= LEAST_LOOKS
    except SpecError:  # a recipe of another version, whose budget is not known here
        return False
