"""Medians over searches, of which some may never arrive, with their intervals, and how two of them compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from archsearch.analysis.objectives import Values

BOUNDED = 6
"""Searches that bound a median; fewer leave both ends of its interval open."""

_RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Middle:
    """A median over searches, or the ratio of two, with the interval that holds it in 95 of 100 such studies."""

    median: float
    low: float
    high: float


def middle(values: Sequence[float]) -> Middle:
    """By order statistics, which ask nothing of the distribution and allow for searches that never got there, whose
    value is infinite (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six values bound nothing: their
    interval is endless."""
    ordered = np.sort([value for value in values if not math.isnan(value)])
    count = len(ordered)
    if not count:
        return Middle(median=math.nan, low=math.nan, high=math.nan)
    rank = int(binom.ppf(0.025, count, 0.5))
    bounded = rank >= 1
    return Middle(
        median=float(_medians(ordered)),
        low=float(ordered[rank - 1]) if bounded else -math.inf,
        high=float(ordered[count - rank]) if bounded else math.inf,
    )


def ratio(mine: Sequence[float], others: Sequence[float]) -> Middle:
    """The median of `mine` `[n]` over that of `others` `[n]`, of searches that are paired, as both saw the same values.

    The interval is that of a paired bootstrap: 4,000 times `n` of the pairs are drawn with replacement, and the ratio
    is made anew (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13, percentiles). NaN where a
    median is not known, as half of the searches never arrived; an end of the interval where resamples leave it open is
    0 or infinite. Fewer than six pairs bound nothing.
    """
    pairs = np.array([mine, others], dtype=np.float64)
    if not np.isfinite(_medians(np.sort(pairs, axis=-1))).all():
        return Middle(median=math.nan, low=math.nan, high=math.nan)
    found = float(_quotient(pairs))
    count = pairs.shape[1]
    if count < BOUNDED:
        return Middle(median=found, low=0.0, high=math.inf)
    drawn = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    again = np.sort(_quotient(pairs[:, drawn]))
    return Middle(
        median=found,
        low=float(again[int(0.025 * _RESAMPLES)]),
        high=float(again[math.ceil(0.975 * _RESAMPLES) - 1]),
    )


def _quotient(pairs: Values) -> Values:
    """`[...]` of `[2, ..., n]`; infinite, as what is unbounded, where neither is known."""
    mine, others = _medians(np.sort(pairs, axis=-1))
    with np.errstate(invalid="ignore"):
        found: Values = np.where(np.isfinite(mine), mine / others, np.inf)
    return found


def _medians(ordered: Values) -> Values:
    """`[...]` of sorted `[..., n]`: infinite where half are, the mean of both in the middle of an even number."""
    count = ordered.shape[-1]
    found: Values = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
    return found
