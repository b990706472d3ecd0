"""Power laws: loss against training FLOPs over three sizes or more, with its band, and where two of them cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, log

import numpy as np
import numpy.typing as npt

FEWEST = 3
"""Sizes below which no law is fitted: it has three numbers."""

SAME = 0.05
"""Sizes whose FLOPs differ by less than this share are one."""

EXTRAPOLATED = 10.0
"""Crossings are looked for up to so many times the most FLOPs that were measured."""

LEAST_EXPONENT, MOST_EXPONENT = 0.01, 3.0
"""At these ends of the exponent the points do not determine a law."""

RESAMPLES = 500
FAILING = 0.2
"""Where more of the resamples than this share give no law, the noise of seeds leaves the law open."""

MISFIT_ERRORS, MISFIT_SHARE = 2.0, 0.1
"""A law that misses a mean by more than so many standard errors, and than this share of the fall of the losses, is
none."""

_GRID, _EXPONENTS = 400, 300
_CONFIDENCE = 0.95
_CLOSE = {"xatol": 1e-3}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The mean loss at one size, its standard error (NaN where no seeds tell), the degrees of freedom of that, and the
    training FLOPs of one run."""

    flops: float
    loss: float
    error: float
    freedom: float = inf


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``loss = floor + scale * (flops / reference) ** -exponent``, with the resamples of these three numbers that make
    its band: `[n, 3]`, n = 0 where no seeds tell the noise."""

    points: tuple[Point, ...]
    floor: float
    scale: float
    exponent: float
    reference: float
    resamples: Floats

    @property
    def checked(self) -> bool:
        """Whether there are more sizes than the law has numbers, so that they could have spoken against it."""
        return len(self.points) > FEWEST

    def loss(self, flops: Floats) -> Floats:
        """The fitted loss: `[n]` to `[n]`."""
        return self.floor + self.scale * (flops / self.reference) ** -self.exponent

    def band(self, flops: Floats) -> tuple[Floats, Floats] | None:
        """The 95% band of the loss, None where no seeds tell the noise: of the fit, if a power law holds."""
        if not len(self.resamples):
            return None
        low, high = np.quantile(self._resampled(flops), [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2], axis=0)
        return low, high

    def _resampled(self, flops: Floats) -> Floats:
        """`[n_resamples, n_flops]`."""
        floor, scale, exponent = self.resamples.T[:, :, None]
        return np.asarray(floor + scale * (flops[None] / self.reference) ** -exponent)

    @property
    def exponent_band(self) -> tuple[float, float] | None:
        """The 95% band of the exponent."""
        if not len(self.resamples):
            return None
        low, high = np.quantile(self.resamples[:, 2], [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class LawCrossing:
    """At ``flops`` training FLOPs, ``better`` has the lower fitted loss from there on; ``low`` and ``high`` hold 95% of
    the resamples that cross, which are the share ``sure`` of all (NaN all three where no seeds tell). ``beyond`` says
    that it lies above what was measured of one of the two."""

    better: str
    worse: str
    flops: float
    low: float
    high: float
    sure: float
    beyond: bool


def power_law(points: Sequence[Point]) -> PowerLaw | str:
    """The law through the points of one architecture, or why there is none.

    Floor and scale are the non-negative least squares for an exponent (`scipy.optimize.nnls`), the exponent is that of
    the least residual (`minimize_scalar`); each point counts by its standard error. Form: Hestness et al. 2017,
    arXiv 1712.00409; Hoffmann et al. 2022, arXiv 2203.15556, equation 2. `RESAMPLES` fits to points that move by their
    errors (Student's t), always the same, give the band.
    """
    points = sorted(points, key=lambda point: point.flops)
    if (why := _undetermined(points)) is not None:
        return why
    flops = np.array([point.flops for point in points])
    losses, errors = (np.array([getattr(point, name) for point in points]) for name in ("loss", "error"))
    told = bool(np.isfinite(errors).all() and (errors > 0).all())
    weights = 1 / errors if told else np.ones(len(points))
    reference = float(np.exp(np.log(flops).mean()))
    best = _fit(flops / reference, losses, weights)
    if best is None:
        return "no exponent between 0.01 and 3 is better than its neighbours: the losses follow no power law"
    misfit = np.abs(losses - best[0] - best[1] * (flops / reference) ** -best[2])
    if (misfit > np.fmax(MISFIT_ERRORS * errors, MISFIT_SHARE * np.ptp(losses))).any():
        return "the best law misses a size by more than its noise: the losses follow no power law"
    resamples = np.empty((0, 3))
    if told:
        resamples = _fits(flops / reference, losses + _errors(points), weights)
        if len(resamples) < (1 - FAILING) * RESAMPLES:
            lost = RESAMPLES - len(resamples)
            return f"the noise of seeds leaves it open: of {RESAMPLES} resamples {lost} follow no power law"
    floor, scale, exponent = best
    return PowerLaw(
        points=tuple(points), floor=floor, scale=scale, exponent=exponent, reference=reference, resamples=resamples
    )


def _errors(points: Sequence[Point]) -> Floats:
    """What the losses may be wrong by, `[RESAMPLES, n_points]`, of Student's t by each point's degrees of freedom."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((RESAMPLES, len(points)))
    for column, point in enumerate(points):
        if isfinite(point.freedom):
            drawn[:, column] *= np.sqrt(point.freedom / rng.chisquare(point.freedom, RESAMPLES))
    return np.asarray(drawn * np.array([point.error for point in points]))


def _undetermined(points: Sequence[Point]) -> str | None:
    """Why no law goes through the points."""
    if any(not (isfinite(point.loss) and point.flops > 0) for point in points):
        return "a rung has no finite loss"
    if any(point.loss < 0 for point in points):
        return "a rung has a loss below 0, which no law with a floor of at least 0 goes through"
    sizes = 0
    last = 0.0
    for point in points:
        if point.flops > last * (1 + SAME):
            sizes, last = sizes + 1, point.flops
    if sizes < FEWEST:
        return f"{sizes} size{'s' if sizes != 1 else ''} of training FLOPs, and a law has three numbers: from 3 on"
    if not points[-1].loss < points[0].loss:
        return "the loss does not fall from the smallest size to the largest"
    return None


def _fit(x: Floats, losses: Floats, weights: Floats) -> tuple[float, float, float] | None:
    """Floor, scale and exponent; None where the exponent ends at one of its ends, or nothing falls."""
    from scipy.optimize import minimize_scalar, nnls

    def solve(exponent: float) -> tuple[Floats, float]:
        columns = np.stack([np.ones_like(x), x**-exponent], axis=1) * weights[:, None]
        found, residual = nnls(columns, losses * weights)
        return found, float(residual)

    ends = log(LEAST_EXPONENT), log(MOST_EXPONENT)
    at = minimize_scalar(
        lambda value: solve(float(np.exp(value)))[1] ** 2, bounds=ends, method="bounded", options=_CLOSE
    ).x
    if min(at - ends[0], ends[1] - at) < 0.02:
        return None
    (floor, scale), _ = solve(float(np.exp(at)))
    return (float(floor), float(scale), float(np.exp(at))) if scale > 0 else None


def _fits(x: Floats, losses: Floats, weights: Floats) -> Floats:
    """`_fit` of many rows of losses, `[n_rows, n_points]`, over `_EXPONENTS` exponents: the found ones, `[n_found, 3]`.

    Two columns of non-negative least squares have their solution in closed form.
    """
    exponents = np.geomspace(LEAST_EXPONENT, MOST_EXPONENT, _EXPONENTS)
    z, square = x[None] ** -exponents[:, None], weights**2  # [n_exponents, n_points]
    ones, zs, zzs = square.sum(), z @ square, z**2 @ square
    sums, products = losses @ square, losses @ (z * square).T  # [n_rows], [n_rows, n_exponents]
    scale = (ones * products - zs * sums[:, None]) / (ones * zzs - zs**2)
    floor = (sums[:, None] - scale * zs) / ones
    scale = np.maximum(np.where(floor < 0, products / zzs, scale), 0.0)
    floor = np.where(floor < 0, 0.0, np.where(scale > 0, floor, sums[:, None] / ones))
    misses = losses[:, None] - floor[..., None] - scale[..., None] * z
    best = (misses**2 @ square).argmin(axis=1)
    rows = np.arange(len(losses))
    found = (best > 0) & (best < _EXPONENTS - 1) & (scale[rows, best] > 0)
    return np.asarray(np.stack([floor[rows, best], scale[rows, best], exponents[best]], axis=1)[found])


def law_crossings(laws: Mapping[str, PowerLaw]) -> list[LawCrossing]:
    """Where two fitted laws cross, from the smallest size that both were measured at to `EXTRAPOLATED` times the
    largest, by FLOPs."""
    found = [
        crossing
        for (one, first), (other, second) in combinations(laws.items(), 2)
        for crossing in _crossings(one, first, other, second)
    ]
    return sorted(found, key=lambda crossing: crossing.flops)


def _crossings(one: str, first: PowerLaw, other: str, second: PowerLaw) -> list[LawCrossing]:
    largest = [law.points[-1].flops for law in (first, second)]
    start = max(law.points[0].flops for law in (first, second))
    grid = np.geomspace(start, max(largest) * EXTRAPOLATED, _GRID)
    gap = first.loss(grid) - second.loss(grid)
    told = bool(len(first.resamples) and len(second.resamples))
    crossings = []
    for at in np.flatnonzero(gap[:-1] * gap[1:] < 0):
        falling = bool(gap[at] > 0)
        flops = _between(grid, gap, int(at))
        low = high = sure = float("nan")
        if told:
            low, high, sure = _spread(grid, first, second, falling=falling)
        crossings.append(
            LawCrossing(
                better=one if falling else other,
                worse=other if falling else one,
                flops=flops,
                low=low,
                high=high,
                sure=sure,
                beyond=flops > min(largest),
            )
        )
    return crossings


def _spread(grid: Floats, first: PowerLaw, second: PowerLaw, *, falling: bool) -> tuple[float, float, float]:
    """The 95% bounds of where resamples cross in the same direction, and the share of those that do.

    Those of every law are made of the same draws: side by side their noise would cancel, so that one side is shuffled.
    """
    count = min(len(first.resamples), len(second.resamples))
    shuffled = np.random.default_rng(1).permutation(len(second.resamples))[:count]
    gaps = first._resampled(grid)[:count] - second._resampled(grid)[shuffled]
    signed = gaps if falling else -gaps
    places = []
    for row in signed:
        found = np.flatnonzero((row[:-1] > 0) & (row[1:] <= 0))
        if len(found):
            places.append(_between(grid, row, int(found[0])))
    if not places:
        return float("nan"), float("nan"), 0.0
    low, high = np.quantile(places, [0.5 - _CONFIDENCE / 2, 0.5 + _CONFIDENCE / 2])
    return float(low), float(high), len(places) / count


def _between(grid: Floats, gap: Floats, at: int) -> float:
    """Where the gap is zero between two points of the grid, by a line over the logarithm of FLOPs."""
    share = gap[at] / (gap[at] - gap[at + 1])
    return float(grid[at] * (grid[at + 1] / grid[at]) ** share)
