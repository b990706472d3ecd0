"""Agreement of two rungs: how far the order of architectures at one size is that at the next, and who moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import inf, nan, sqrt
from statistics import fmean

import numpy as np
import numpy.typing as npt

from archsearch.analysis.differences import SeedNoise, reach_of, shown_noise

FEWEST = 4
"""Architectures below which no agreement is computed: three have six orders, one of which is right by luck."""

RESAMPLES = 2000
PERFECT_SAMPLES = 4000
_CONFIDENCE = 0.95
Floats = npt.NDArray[np.float64]
BySeed = Mapping[int, float]


def noise_of(scores: Sequence[BySeed]) -> SeedNoise:
    """The deviation that seeds make, from values by seed, pooled over the architectures that show any."""
    return shown_noise(scores)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau-b of the means of ``count`` architectures on two rungs, with 95% bounds; ``why`` says why there is
    none, "" where there is. ``noise`` says whether the bounds hold the noise of seeds of both rungs, or for one of them
    that of the choice of architectures alone, as no seeds tell."""

    count: int
    tau: float = nan
    low: float = nan
    high: float = nan
    noise: bool = False
    why: str = ""

    @property
    def clear(self) -> bool:
        """Whether the bounds leave out that there is no agreement."""
        return self.low > 0 or self.high < 0


def agreement(below: Sequence[BySeed], above: Sequence[BySeed]) -> Agreement:
    """The agreement of the same architectures' scores on two rungs.

    Bounds are percentiles of `RESAMPLES` resamples, always the same: architectures are drawn anew with replacement, and
    each mean moves by the pooled noise of its seeds, itself known to its degrees of freedom (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13). They hold the tau that was found, which noise in the resamples
    lowers; of a perfect order they reach at least as far as `least_of_perfect` of those that are told apart.
    """
    count = len(below)
    if count < FEWEST:
        return Agreement(count=count, why=f"{count} in both: from {FEWEST} on an order tells something")
    x, y = _means(below), _means(above)
    tau = float(kendall(x, y))
    if not np.isfinite(tau):
        return Agreement(count=count, why="all are equal on one of the rungs: there is no order to compare")
    rng = np.random.default_rng(0)
    noises = noise_of(below), noise_of(above)
    moved = [
        _moved(means, scores, noise, rng) for means, scores, noise in zip((x, y), (below, above), noises, strict=True)
    ]
    chosen = rng.integers(0, count, (RESAMPLES, count))
    rows = np.arange(RESAMPLES)[:, None]
    taus = kendall(moved[0][rows, chosen], moved[1][rows, chosen])
    known = taus[np.isfinite(taus)]
    low, high = np.quantile(known, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2]) if len(known) else (nan, nan)
    low, high = np.fmin(low, tau), np.fmax(high, tau)
    if abs(tau) == 1.0:
        reach = least_of_perfect(min(len(np.unique(means)) for means in (x, y)))
        low, high = (min(low, reach), tau) if tau > 0 else (tau, max(high, -reach))
    told = all(noise.freedom for noise in noises)
    return Agreement(count=count, tau=tau, low=float(low), high=float(high), noise=told)


@cache
def least_of_perfect(count: int) -> float:
    """The least tau of a population of which `count` members have a perfect order at least once in 40 samples.

    Resamples of a perfect order are perfect, and would bound it by itself. Here both sides are of a normal
    distribution of some correlation, whose tau is ``2 / pi * arcsin`` of it (Kendall and Gibbons, Rank Correlation
    Methods, 1990); the samples are always the same.
    """
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, PERFECT_SAMPLES, count))
    order = np.argsort(x, axis=1)
    x, other = np.take_along_axis(x, order, axis=1), np.take_along_axis(other, order, axis=1)
    for correlation in np.sin(np.pi / 2 * np.linspace(-0.5, 0.99, 150)):
        y = correlation * x + np.sqrt(1 - correlation**2) * other
        if (np.diff(y, axis=1) > 0).all(axis=1).mean() >= (1 - _CONFIDENCE) / 2:
            return float(2 / np.pi * np.arcsin(correlation))
    return 0.99


def kendall(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b along the last axis, NaN where one has no order: `[..., n]` twice to `[...]`.

    `scipy.stats.kendalltau` takes one pair of rows at a time, and thousands are asked for.
    """
    first, second = (np.sign(one[..., :, None] - one[..., None, :]) for one in (x, y))
    sizes = np.abs(first).sum((-1, -2)) * np.abs(second).sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((first * second).sum((-1, -2)) / np.sqrt(sizes))


def _means(scores: Sequence[BySeed]) -> Floats:
    return np.array([fmean(values.values()) for values in scores])


def _moved(means: Floats, scores: Sequence[BySeed], noise: SeedNoise, rng: np.random.Generator) -> Floats:
    """The means as other seeds might have had them: `[RESAMPLES, n]`."""
    drawn = rng.standard_normal((RESAMPLES, len(means)))
    if not noise.freedom:
        return np.broadcast_to(means, drawn.shape)
    counts = np.array([len(values) for values in scores], dtype=np.float64)
    deviation = noise.deviation * np.sqrt(noise.freedom / rng.chisquare(noise.freedom, (RESAMPLES, 1)))
    return np.asarray(means + drawn * deviation / np.sqrt(counts))


@dataclass(frozen=True, kw_only=True)
class Move:
    """The place of an architecture, 1 for the best, among those on both rungs; equal means share a place.

    ``passed`` are those that it was behind and is ahead of now, ``passed_by`` those of which the reverse holds;
    ``clear`` says that one of these changes is larger than the noise of seeds on both rungs. Of all pairs of a step
    chance passes for such a change once in 20 at most.
    """

    key: str
    below: int
    above: int
    passed: tuple[str, ...]
    passed_by: tuple[str, ...]
    clear: bool


def moves(below: Mapping[str, BySeed], above: Mapping[str, BySeed], *, maximize: bool) -> list[Move]:
    """How the architectures that have scores on both rungs changed places, the best above first."""
    keys, sign = [key for key in below if key in above], 1.0 if maximize else -1.0
    rungs = [_Rung.of({key: rung[key] for key in keys}, sign) for rung in (below, above)]
    passed: dict[str, list[str]] = {key: [] for key in keys}
    by: dict[str, list[str]] = {key: [] for key in keys}
    clearly: set[str] = set()
    for one, other in permutations(keys, 2):
        before, after = (rung.gain(one, other) for rung in rungs)
        if before < 0 < after:
            passed[one].append(other)
            by[other].append(one)
            if all(abs(gap) > rung.band(one, other) for gap, rung in zip((before, after), rungs, strict=True)):
                clearly |= {one, other}
    found = [
        Move(
            key=key,
            below=rungs[0].place(key),
            above=rungs[1].place(key),
            passed=tuple(passed[key]),
            passed_by=tuple(by[key]),
            clear=key in clearly,
        )
        for key in keys
    ]
    return sorted(found, key=lambda move: (move.above, move.below))


@dataclass(frozen=True, kw_only=True)
class _Rung:
    """The means of one rung, turned so that more is better, and their noise."""

    means: Mapping[str, float]
    counts: Mapping[str, int]
    noise: SeedNoise

    @classmethod
    def of(cls, scores: Mapping[str, BySeed], sign: float) -> _Rung:
        return cls(
            means={key: sign * fmean(values.values()) for key, values in scores.items()},
            counts={key: len(values) for key, values in scores.items()},
            noise=noise_of(list(scores.values())),
        )

    def gain(self, one: str, other: str) -> float:
        return self.means[one] - self.means[other]

    def band(self, one: str, other: str) -> float:
        """How far apart two means are by chance, in any of all pairs; infinite where the noise is unknown."""
        if not self.noise.freedom:
            return inf
        reach = reach_of(self.noise.freedom, among=len(self.means) * (len(self.means) - 1) // 2)
        return reach * self.noise.deviation * sqrt(1 / self.counts[one] + 1 / self.counts[other])

    def place(self, key: str) -> int:
        return 1 + sum(mean > self.means[key] for mean in self.means.values())
