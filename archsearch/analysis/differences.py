"""Differences between two architectures, and how much of them seeds alone could make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from statistics import fmean, stdev

import numpy as np
import pandas as pd

OWN_SEEDS = 3
"""From this many seeds on each side, their own spread tells the noise; below, that of the whole search."""

_CONFIDENCE = 0.95

ROUNDING = 1e-12
"""Differences whose spread is less than so much of the values differ by the rounding of floats alone."""


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """The standard deviation that seeds alone make in one objective, pooled over candidates, and its freedom."""

    deviation: float
    freedom: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``mean`` is the second less the first; ``low`` and ``high`` bound it with 95% confidence.

    ``noise`` says what tells the error: "exact" (a cost), "seeds" (their own), "pooled" (the search's), or "unknown",
    where the error is NaN and the bounds infinite.
    """

    mean: float
    error: float
    low: float
    high: float
    noise: str

    @property
    def clear(self) -> bool:
        """Whether the bounds leave out zero."""
        return self.low > 0 or self.high < 0


def exact_difference(first: float, second: float) -> Difference:
    """Of two costs, which have no noise."""
    mean = second - first
    return Difference(mean=mean, error=0.0, low=mean, high=mean, noise="exact")


def seed_noise(points: pd.DataFrame, name: str) -> SeedNoise:
    """The pooled deviation of an objective over seeds, from `analysis.points`; of freedom 0 without two seeds."""
    counts = points["seeds"].map(len).to_numpy(dtype=np.int64)
    spread = points[f"{name}_std"].to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(spread) & (counts > 1)
    freedom = int((counts[known] - 1).sum())
    if not freedom:
        return SeedNoise(deviation=nan, freedom=0)
    variance = float(((counts[known] - 1) * spread[known] ** 2).sum()) / freedom
    return SeedNoise(deviation=sqrt(variance), freedom=freedom)


def difference(first: Mapping[int, float], second: Mapping[int, float], pooled: SeedNoise | None = None) -> Difference:
    """The second's mean less the first's, from their values by seed; `pooled` stands in for too few seeds.

    With three seeds on each side: Welch's interval. A seed without a value leaves no mean, as on a front.
    """
    if not _whole(first) or not _whole(second):
        return Difference(mean=nan, error=nan, low=-inf, high=inf, noise="unknown")
    mean = fmean(second.values()) - fmean(first.values())
    if min(len(first), len(second)) >= OWN_SEEDS:
        parts = [stdev(values.values()) ** 2 / len(values) for values in (first, second)]
        return bounded(mean, sqrt(sum(parts)), _welch_freedom(parts, (len(first), len(second))), "seeds")
    if pooled is not None and pooled.freedom:
        error = pooled.deviation * sqrt(1 / len(first) + 1 / len(second))
        return bounded(mean, error, pooled.freedom, "pooled")
    return Difference(mean=mean, error=nan, low=-inf, high=inf, noise="unknown")


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], pooled: SeedNoise | None = None
) -> tuple[Difference, float]:
    """The mean over seeds of the second less the first of the same seed, and the chance of one as large without any
    (two-sided, by Student's t); NaN where fewer than two seeds are shared, or one has no value. Without a seed that is
    shared there is no mean either.

    `pooled`, the deviation of such differences among many architectures, stands in where those of all seeds are equal,
    as where both metrics are at their end: three equal numbers do not say that there is no noise. Where nothing stands
    in, a chance is told of no difference alone: it is 1.
    """
    parts = _paired(first, second)
    mean = fmean(parts) if parts else nan
    deviation, freedom, noise = (stdev(parts) if len(parts) > 1 else 0.0), len(parts) - 1, "seeds"
    if freedom > 0 and not deviation and pooled is not None and pooled.freedom:
        deviation, freedom, noise = pooled.deviation, pooled.freedom, "pooled"
    if not deviation:
        alike = len(parts) > 1 and not mean
        return Difference(mean=mean, error=nan, low=-inf, high=inf, noise="unknown"), 1.0 if alike else nan
    error = deviation / sqrt(len(parts))
    return bounded(mean, error, freedom, noise), _chance(mean, error, freedom)


def noise_of_differences(architectures: Iterable[Mapping[int, float]]) -> SeedNoise:
    """The deviation that seeds alone make in the difference of two architectures of one seed, from the values by seed
    of several, the baseline among them: that of one about its own mean, pooled over those that show any, times the
    root of 2.

    Differences from a baseline would share its noise, which so few seeds may show as none or twice over, and would
    count it anew with each architecture. What a seed does to all of them alike falls out of a difference, so that this
    is rather too large than too small. Equal values do not say that there is no noise, and would only thin that of the
    others.
    """
    found = shown_noise(architectures)
    return SeedNoise(deviation=sqrt(2.0) * found.deviation, freedom=found.freedom)


def shown_noise(groups: Iterable[Mapping[int, float]]) -> SeedNoise:
    """`pooled_noise` of values by seed, of those groups alone that show any: equal values, as where a metric is at its
    end, do not say that there is no noise. Of freedom 0 where none shows any."""
    return pooled_noise(list(values.values()) for values in groups if _whole(values) and _spread(values))


def _spread(values: Mapping[int, float]) -> bool:
    """Whether values differ by more than rounding."""
    return max(values.values()) - min(values.values()) > ROUNDING * max(map(abs, values.values()))


def pooled_noise(groups: Iterable[Sequence[float]]) -> SeedNoise:
    """The deviation of values about the mean of their group, pooled over the groups that have two."""
    several = [values for values in groups if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum((len(values) - 1) * stdev(values) ** 2 for values in several)
    return SeedNoise(deviation=sqrt(squares / freedom) if freedom else nan, freedom=freedom)


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of several differences, corrected so that any of them is below a level by chance no more often than that
    level (Holm, Scandinavian Journal of Statistics 6, 1979); NaN stays, and is not counted."""
    known = sorted((chance, index) for index, chance in enumerate(chances) if isfinite(chance))
    found, least = [nan] * len(chances), 0.0
    for place, (chance, index) in enumerate(known):
        least = max(least, min(1.0, chance * (len(known) - place)))
        found[index] = least
    return found


def _chance(mean: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    return float(2.0 * stdtr(freedom, -abs(mean) / error))


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """The second less the first by shared seed, equal where rounding alone makes them differ; none where one has no
    value."""
    if not _whole(first) or not _whole(second):
        return []
    parts = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    least = ROUNDING * max(map(abs, (*first.values(), *second.values())))
    if parts and max(parts) - min(parts) <= least:
        mean = fmean(parts)
        return [mean if abs(mean) > least else 0.0] * len(parts)
    return parts


def _whole(values: Mapping[int, float]) -> bool:
    return bool(values) and all(isfinite(value) for value in values.values())


def _welch_freedom(parts: list[float], counts: tuple[int, int]) -> float:
    """Welch and Satterthwaite's degrees of freedom for variances of means `parts`."""
    if not sum(parts):
        return float(sum(counts) - 2)
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return float(sum(parts)) ** 2 / below


def bounded(mean: float, error: float, freedom: float, noise: str) -> Difference:
    """A difference whose error of so many degrees of freedom is known."""
    reach = reach_of(freedom) * error
    return Difference(mean=mean, error=error, low=mean - reach, high=mean + reach, noise=noise)


def reach_of(freedom: float, among: int = 1) -> float:
    """How many standard errors an interval of 95% confidence reaches to either side (Student's t); of so many
    comparisons `among` which chance alone shall pass for one no more often than once in 20 (Bonferroni)."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1.0 - (1.0 - _CONFIDENCE) / 2 / max(1, among)))
