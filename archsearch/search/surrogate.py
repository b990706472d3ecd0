"""The surrogate of one metric: a Gaussian process whose covariance is a weighted sum of given kernels, and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from archsearch.analysis.objectives import Values

_NOISE = 0.05
"""The share of a metric's variance that seeds are thought to make, before any is seen."""
_WIDTH = 1.5
"""How far the logarithms of weights are from the prior's, as a standard deviation."""
_BOUNDS = (-12.0, 6.0)
_MOST = 160
"""Trials by which weights are found: the newest ones, and as many of the older; all of them predict."""


class Surrogate:
    """Variance components over kernels (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
    chapter 5), with log-normal priors on their weights, which few trials cannot find by themselves."""

    def __init__(self, kernels: int) -> None:
        self._prior = np.log(np.array([1.0 / kernels] * kernels + [_NOISE]))
        self._weights = self._prior.copy()
        self._fitted = 0

    def fit(self, kernels: Values, values: Values, seeds: Values | None = None) -> None:
        """Takes in the trials: `kernels` `[kernels, n, n]` among them and `values` `[n]`, means over so many `seeds`
        `[n]` each, one where left out: the noise of a mean is that of a seed, divided by their number. A candidate may
        come several times, with other seeds each. Weights are found anew where there are a tenth more trials than when
        they were."""
        self._seeds = np.ones(len(values)) if seeds is None else seeds
        self._mean, spread = float(values.mean()), float(values.std())
        self._spread = spread if spread > 0 else 1.0
        scaled = (values - self._mean) / self._spread
        if len(values) >= max(4, 1.1 * self._fitted):
            chosen = _chosen(len(values))
            self._weights = self._found(kernels[:, chosen][:, :, chosen], scaled[chosen], self._seeds[chosen])
            self._fitted = len(values)
        self.condition(kernels, values, self._seeds)

    def condition(self, kernels: Values, values: Values, seeds: Values) -> None:
        """Takes trials in by the weights, mean and spread that were found before."""
        self._factor = cho_factor(_covariance(kernels, self._weights, seeds), lower=True)
        self._solved = cho_solve(self._factor, (values - self._mean) / self._spread)

    def predict(self, kernels: Values, own: Values) -> tuple[Values, Values]:
        """Mean and standard deviation `[m]` of candidates without noise, what is not known of their common mean
        included: `kernels` `[kernels, m, n]` with the trials, and `own` `[kernels, m]` of each with itself."""
        weights = np.exp(self._weights[:-1])
        with_trials = np.tensordot(weights, kernels, axes=1)
        mean = with_trials @ self._solved
        explained = np.einsum("mn,nm->m", with_trials, cho_solve(self._factor, with_trials.T))
        variance = np.maximum(weights @ own - explained + 1.0 / with_trials.shape[1], 1e-10)
        return self._mean + self._spread * mean, self._spread * np.sqrt(variance)

    @property
    def noise(self) -> float:
        """The standard deviation of a value by its seeds, as the trials tell."""
        return float(self._spread * np.exp(self._weights[-1] / 2))

    def _found(self, kernels: Values, values: Values, seeds: Values) -> Values:
        def cost(weights: Values) -> tuple[float, Values]:
            return self._cost(weights, kernels, values, seeds)

        best = minimize(
            cost,
            self._weights,
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * len(self._prior),
            options={"maxiter": 40},
        )
        found: Values = best.x
        return found

    def _cost(self, weights: Values, kernels: Values, values: Values, seeds: Values) -> tuple[float, Values]:
        """The negative log of likelihood and prior, and its gradient."""
        covariance = _covariance(kernels, weights, seeds)
        factor: Any = cho_factor(covariance, lower=True)
        inverse = cho_solve(factor, np.eye(len(values)))
        solved = inverse @ values
        pulled = inverse - np.outer(solved, solved)
        slopes = [*np.tensordot(kernels, pulled, axes=2), (np.diag(pulled) / seeds).sum()]
        gradient = 0.5 * np.exp(weights) * np.array(slopes)
        away = (weights - self._prior) / _WIDTH
        fit = 0.5 * values @ solved + np.log(np.diag(factor[0])).sum()
        return float(fit + 0.5 * away @ away), gradient + away / _WIDTH


def _covariance(kernels: Values, weights: Values, seeds: Values) -> Values:
    found: Values = np.tensordot(np.exp(weights[:-1]), kernels, axes=1)
    found[np.diag_indices_from(found)] += np.exp(weights[-1]) / seeds + 1e-8
    return found


def _chosen(count: int) -> npt.NDArray[np.int64]:
    """The places of the trials by which weights are found."""
    if count <= _MOST:
        return np.arange(count)
    older = np.linspace(0, count - _MOST // 2 - 1, _MOST // 2).astype(int)
    return np.concatenate([older, np.arange(count - _MOST // 2, count)])
