"""Contrasts: means and differences of candidates with the errors that their spread allows."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A mean over pairs of candidates of second less first, with its standard error (NaN below two pairs).

    ``candidates`` is how many distinct ones the pairs are made of.
    """

    mean: float
    error: float
    pairs: int
    candidates: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom to judge the error by: as if the candidates made as many separate pairs as they can."""
        return max(1, self.candidates // 2 - 1)


def contrast(values: Values, first: Rows, second: Rows) -> Contrast:
    """The mean of ``values[second] - values[first]`` over pairs; pairs without both values do not count.

    A candidate may stand in several pairs, whose differences then share its noise: the variance adds the products
    of residuals of all pairs that share a member, and is never taken below that of independent pairs
    (Aronow, Samii and Assenova, "Cluster-robust variance estimation for dyadic data", Political Analysis 23, 2015).
    """
    known = np.isfinite(values[first]) & np.isfinite(values[second])
    first, second = first[known], second[known]
    pairs = len(first)
    if not pairs:
        return Contrast(mean=nan, error=nan, pairs=0, candidates=0)
    differences = values[second] - values[first]
    members = len(np.unique(np.concatenate([first, second])))
    mean = float(differences.mean())
    return Contrast(mean=mean, error=_error(differences - mean, first, second), pairs=pairs, candidates=members)


def _error(residuals: Values, first: Rows, second: Rows) -> float:
    pairs = len(residuals)
    if pairs < 2:
        return nan
    sums: Values = np.zeros(int(max(first.max(), second.max())) + 1)
    np.add.at(sums, second, residuals)
    np.add.at(sums, first, residuals)
    independent = float((residuals**2).sum())
    shared = float((sums**2).sum()) - independent
    return sqrt(max(shared, independent) / (pairs * (pairs - 1)))


def clear(mean: float, error: float, freedom: int) -> bool:
    """Whether a mean is told from zero with 95% confidence (Student's t); an error of zero tells any other mean."""
    from scipy.special import stdtrit

    return bool(abs(mean) > float(stdtrit(freedom, 0.975)) * error) if error == error else False


def mean_error(values: Values) -> tuple[float, float]:
    """The mean and its standard error: NaN without a value, an error of NaN for one alone."""
    if not len(values):
        return nan, nan
    error = float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else nan
    return float(values.mean()), error
