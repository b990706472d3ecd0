"""Learning rates: what each made of an architecture on a task, and whether the best one says more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import Any, Literal

KEPT = 0.5
"""An architecture is fragile where every other learning rate keeps less than so much of what the best one gains."""

LEVEL = 0.05
"""Chance alone makes as large a gain of the best of all rates less often than so."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What learning rates made of an architecture on a task: the mean on validation over seeds by rate, the best rate,
    whether it is the lowest or the highest of several, and whether it stands alone.

    ``learned`` says whether the best one is further above the task's chance than noise is: where it is not, which rate
    is best says nothing, and neither ``at_end`` nor ``fragile`` is told.
    """

    means: Mapping[float, float]
    best: float | None
    at_end: Literal["", "lowest", "highest"]
    fragile: bool
    learned: bool


def rates_of(payloads: Sequence[Mapping[str, Any]], metric: str, direction: str, chance: float) -> Rates:
    """The rates of one architecture on one task, from `Measurement.to_json()` of its seeds."""
    by_rate: dict[float, list[float]] = {}
    for payload in payloads:
        for entry in payload["sweep"]:
            value = entry["validation"].get(metric)
            by_rate.setdefault(entry["learning_rate"], []).append(nan if value is None else float(value))
    rates = sorted(by_rate)
    means = {rate: fmean(by_rate[rate]) for rate in rates}
    finite = {rate: mean for rate, mean in means.items() if isfinite(mean)}
    if not finite:
        return Rates(means=means, best=None, at_end="", fragile=False, learned=False)
    best = (max if direction == "maximize" else min)(finite, key=lambda rate: finite[rate])
    sign = 1.0 if direction == "maximize" else -1.0
    gains = {rate: [sign * (value - chance) for value in by_rate[rate]] for rate in finite}
    learned = _learned(gains.pop(best), list(gains.values()), len(rates))
    at_end: Literal["", "lowest", "highest"] = ""
    if learned and len(rates) > 1 and best in (rates[0], rates[-1]):
        at_end = "lowest" if best == rates[0] else "highest"
    others = [fmean(gains[rate]) if rate in gains else 0.0 for rate in rates if rate != best]
    fragile = learned and bool(others) and max(0.0, *others) < KEPT * sign * (finite[best] - chance)
    return Rates(means=means, best=best, at_end=at_end, fragile=fragile, learned=learned)


def _learned(best: Sequence[float], others: Sequence[Sequence[float]], rates: int) -> bool:
    """Whether the best rate's mean gain over chance is larger than noise makes that of the best of so many rates.

    Were nothing learnt, every run would scatter about chance alike, so that several spreads tell the noise: that of the
    best rate's seeds, that of all runs about their mean, and that of each other rate's runs about chance. What was
    learnt, and what went astray, widens some of them and leaves one: so the least is taken, by Student's t, corrected
    for rates and spreads. One that is zero says nothing, as two equal numbers may; but where the seeds of another rate
    are at chance to the digit, or no run differs from another, nothing could have made the gain.
    """
    from scipy.special import stdtr

    gain = fmean(best)
    if gain <= 0:
        return False
    runs = [*best, *(value for values in others for value in values)]
    spreads = [(stdev(values), len(values) - 1) for values in (best, runs) if len(values) > 1]
    spreads += [(sqrt(fmean(value * value for value in values)), len(values)) for values in others]
    known = [(spread, freedom) for spread, freedom in spreads if spread]
    if not known or any(len(values) > 1 and not any(values) for values in others):
        return True
    level = LEVEL / (rates * len(known))
    return any(stdtr(freedom, -gain * sqrt(len(best)) / spread) < level for spread, freedom in known)
