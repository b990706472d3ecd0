"""Composition: what one layer of a kind in place of another is worth, the numbers of all other kinds being equal."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from archsearch.analysis.contrasts import Values
from archsearch.analysis.designs import Designs

SPARE = 30
"""Candidates that a fit must have beyond one for each kind of layer; with fewer its error means nothing."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A contrast of a linear fit with its standard error and degrees of freedom, over so many candidates; NaN and none
    where it cannot be told."""

    mean: float
    error: float
    candidates: int
    freedom: int = 0


def composition(designs: Designs, values: Values, weights: Values) -> Fit:
    """The sum of `weights` `[n_layers]` times what a layer of each kind adds to the objective, wherever it stands and
    on whichever backbone.

    Ordinary least squares of the values on how many layers of each kind a candidate has, with errors that allow for
    unequal noise (White, Econometrica 48, 1980, with his factor for degrees of freedom).
    """
    if not weights.any():
        return Fit(mean=nan, error=nan, candidates=0)
    known = np.isfinite(values)
    counts = np.stack([(designs.codes == kind).sum(axis=1) for kind in range(len(designs.layers))], axis=1)
    beside = designs.backbones[:, None] == np.unique(designs.backbones)[1:]
    counts, weights = np.hstack([counts, beside]), np.append(weights, np.zeros(beside.shape[1]))
    counts, values = counts[known].astype(np.float64), values[known]
    rank = int(np.linalg.matrix_rank(counts)) if len(values) else 0
    spare = len(values) - rank
    if spare < SPARE:
        return Fit(mean=nan, error=nan, candidates=0)
    inverse = np.linalg.pinv(counts)
    reach = weights @ inverse
    if not np.allclose(reach @ counts, weights, atol=1e-8):
        return Fit(mean=nan, error=nan, candidates=0)
    residuals = values - counts @ (inverse @ values)
    variance = float((reach**2 * residuals**2).sum()) * len(values) / spare
    return Fit(mean=float(reach @ values), error=sqrt(variance), candidates=len(values), freedom=spare)
