"""Differences between two architectures, and how much of them seeds alone could make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from statistics import fmean, stdev

import numpy as np
import pandas as pd

OWN_SEEDS = 3
"""From this many seeds on each side, their own spread tells the noise; below, that of the whole search."""

_CONFIDENCE = 0.95


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
        return _bounded(mean, sqrt(sum(parts)), _welch_freedom(parts, (len(first), len(second))), "seeds")
    if pooled is not None and pooled.freedom:
        error = pooled.deviation * sqrt(1 / len(first) + 1 / len(second))
        return _bounded(mean, error, pooled.freedom, "pooled")
    return Difference(mean=mean, error=nan, low=-inf, high=inf, noise="unknown")


def _whole(values: Mapping[int, float]) -> bool:
    return bool(values) and all(isfinite(value) for value in values.values())


def _welch_freedom(parts: list[float], counts: tuple[int, int]) -> float:
    """Welch and Satterthwaite's degrees of freedom for variances of means `parts`."""
    if not sum(parts):
        return float(sum(counts) - 2)
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return float(sum(parts)) ** 2 / below


def _bounded(mean: float, error: float, freedom: float, noise: str) -> Difference:
    from scipy.special import stdtrit

    reach = float(stdtrit(freedom, 0.5 + _CONFIDENCE / 2)) * error
    return Difference(mean=mean, error=error, low=mean - reach, high=mean + reach, noise=noise)
