"""Finding: what a front says in one sentence, of its confirmed points and no more than their seeds can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import pandas as pd

from archsearch.analysis.differences import Difference, SeedNoise, difference, seed_noise
from archsearch.analysis.objectives import Objective
from archsearch.analysis.speed import REFERENCE

MOST = 40
"""Points of a front that a sentence can still tell of."""

_WHOLE = 0.05
"""From this share on whole percents say enough."""

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A point of the front: its metric by seed, its cost, and how many of its layers are full attention, the mixer
    `REFERENCE`."""

    pattern: str
    values: Mapping[int, float]
    mean: float
    cost: float
    full: int
    layers: int
    confirmed: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """What going from fewer full layers to more is worth: the best point of each number, and the difference."""

    fewer: FrontPoint
    more: FrontPoint
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a front says of one measured objective and one cost.

    ``best`` has the best mean, ``step`` is the largest clear one from fewer full layers to more, and ``cheapest`` the
    point of least cost that is within the noise of the best one; None where no seeds tell the noise, or nothing is
    clear. ``numbers`` are the numbers of full layers that there are, ``reference`` the cost of full attention in every
    layer.
    """

    gained: Objective
    cost: Objective
    best: FrontPoint
    step: Step | None
    cheapest: FrontPoint | None
    numbers: tuple[int, ...]
    reference: float | None

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if self.cheapest is None:
            return (
                f"Nothing tells yet what {self.gained.name} is worth: no point of the front has two seeds, so that the "
                "noise is unknown (search.confirm_seeds = 2 measures each with fresh ones)"
            )
        said = "; ".join(filter(None, (self._stepped(), self._least())))
        return said[0].upper() + said[1:]

    def _stepped(self) -> str:
        if len(self.numbers) < 2:
            return ""
        if self.step is None:
            return f"On this front the number of full layers makes no difference in {self.gained.name} beyond its noise"
        fewer, more = self.step.fewer, self.step.more
        show, told = self.gained.show, self.step.difference
        low, high = sorted((abs(told.low), abs(told.high)))
        return (
            f"{_count(more.full).capitalize()} full layer{'s' if more.full > 1 else ''} of {_count(more.layers)} "
            f"{'takes' if more.full == 1 else 'take'} {self.gained.name} to {show(more.mean)}, where with "
            f"{_count(fewer.full)}{'' if fewer.full else ' such layer'} the best has {show(fewer.mean)} (a difference "
            f"of {show(low)} to {show(high)}, with 95% confidence)"
        )

    def _least(self) -> str:
        assert self.cheapest is not None
        share = ""
        if self.reference:
            part = self.cheapest.cost / self.reference
            share = f", {part:{'.0%' if part >= _WHOLE else '.2%'}} of full attention in every layer"
        which = "the best is" if self.cheapest is self.best else "the cheapest within noise of the best is"
        return f"{which} {self.cheapest.pattern} ({self.cost.name} {self.cost.show(self.cheapest.cost)}{share})"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        step = self.step
        return {
            "sentence": self.sentence,
            "best": self.best.pattern,
            "cheapest_within_noise": None if self.cheapest is None else self.cheapest.pattern,
            "step": None
            if step is None
            else {
                "from": step.fewer.pattern,
                "to": step.more.pattern,
                "difference": step.difference.mean,
                "low": step.difference.low,
                "high": step.difference.high,
            },
        }


def finding(
    found: Sequence[FrontPoint], noise: SeedNoise, gained: Objective, cost: Objective, reference: float | None
) -> Finding | None:
    """What the points of a front say; None of no point.

    Only confirmed points speak where there are any: fresh seeds do not know which candidate luck had chosen.
    `reference` is the cost of full attention in every layer.
    """
    found = [point for point in found if point.values and isfinite(point.mean)]
    speaking = [point for point in found if point.confirmed] or found
    if not speaking:
        return None
    best = _best(speaking, gained)
    known = len(best.values) > 1 or noise.freedom > 0
    within = [point for point in speaking if point is best or _within(_difference(point, best, noise))]
    return Finding(
        gained=gained,
        cost=cost,
        best=best,
        step=_step(speaking, noise, gained) if known else None,
        cheapest=min(within, key=lambda point: cost.sign * point.cost) if known else None,
        numbers=tuple(sorted({point.full for point in speaking})),
        reference=reference,
    )


def _step(points: Sequence[FrontPoint], noise: SeedNoise, gained: Objective) -> Step | None:
    """The largest clear difference between the best points of two neighbouring numbers of full layers."""
    by_number: dict[int, list[FrontPoint]] = {}
    for point in points:
        by_number.setdefault(point.full, []).append(point)
    best = [_best(by_number[number], gained) for number in sorted(by_number)]
    steps = [Step(fewer=fewer, more=more, difference=_difference(fewer, more, noise)) for fewer, more in pairwise(best)]
    clear = [step for step in steps if step.difference.clear and gained.sign * step.difference.mean < 0]
    return max(clear, key=lambda step: abs(step.difference.mean), default=None)


def _best(points: Sequence[FrontPoint], gained: Objective) -> FrontPoint:
    return min(points, key=lambda point: gained.sign * point.mean)


def _difference(first: FrontPoint, second: FrontPoint, noise: SeedNoise) -> Difference:
    return difference(first.values, second.values, noise)


def _within(told: Difference) -> bool:
    """Whether a difference is known to be no larger than its noise."""
    return told.noise != "unknown" and not told.clear


def _count(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)


def front_points(
    front: pd.DataFrame,
    values: pd.DataFrame,
    layers: Mapping[int, Sequence[str]],
    gained: Objective,
    cost: Objective,
) -> list[FrontPoint]:
    """The rows of a front with their values by seed: `values` is the store's frame, `layers` the mixers by trial."""
    mine = values[(values["name"] == gained.metric) & (values["split"] == "test")].dropna(subset=["seed"])
    by_trial = {trial: dict(zip(rows["seed"], rows["value"], strict=True)) for trial, rows in mine.groupby("trial")}
    return [
        FrontPoint(
            pattern=str(row["pattern"]),
            values={int(seed): float(value) for seed, value in by_trial.get(row["trial"], {}).items()},
            mean=float(row[gained.name]),
            cost=float(row[cost.name]),
            full=list(layers.get(int(row["trial"]), ())).count(REFERENCE),
            layers=len(layers.get(int(row["trial"]), ())),
            confirmed=bool(row["confirmed"]),
        )
        for row in front.to_dict("records")
    ]


def noise_among(points: pd.DataFrame, gained: Objective) -> SeedNoise:
    """The noise of one objective, pooled over the candidates that have two seeds."""
    return seed_noise(points[points["state"] == "complete"], gained.name)
