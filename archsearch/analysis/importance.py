"""Importance: how much each choice decides whether a candidate is among the best of one objective."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

BEST = 0.25
"""The share of candidates that count as the best."""

FEWEST = 20
"""Candidates below which nothing is said: five of them would not be a quarter."""

RESAMPLES = 100

COLUMNS = ("choice", "importance", "error", "chance", "clear")
"""One row a choice, the most important first. `importance` is its share of all (they add up to 1), `error` the standard
error of that share, `chance` the share that it passes by luck in one of twenty shuffles of the values, `clear` whether
it is beyond that."""

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
_ABSENT = object()


def importances(
    params: Sequence[Mapping[str, Any]], losses: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """`COLUMNS` of candidates' choices `params`, given an objective turned so that less is better.

    PED-ANOVA of reaching the best quarter of the candidates that were drawn, for choices that others open
    (arXiv 2304.10255; 2601.20800, algorithm 1). The error comes from random halves of the candidates (delete-half
    jackknife: Shao and Wu, Annals of Statistics 17, 1989), `chance` from shuffled values. Empty for fewer than
    `FEWEST` candidates with choices and a finite loss, or losses that are all equal.
    """
    kept = [(chosen, loss) for chosen, loss in zip(params, losses, strict=True) if chosen and np.isfinite(loss)]
    values = np.array([loss for _, loss in kept])
    if len(kept) < FEWEST or not np.ptp(values):
        return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    choices = Choices.of([chosen for chosen, _ in kept])
    rng = np.random.default_rng(seed)
    whole = divergences(choices, values)
    halves = [_of_half(choices, values, rng) for _ in range(resamples)]
    shuffled = [divergences(choices, rng.permutation(values)) for _ in range(resamples)]
    table = pd.DataFrame(
        {
            "choice": choices.names,
            "importance": _shares(whole),
            "error": np.std(halves, axis=0, ddof=1),
            "chance": np.quantile(shuffled, 0.95, axis=0) / (whole.sum() or 1.0),
        }
    )
    table["clear"] = table["importance"] > table["chance"]
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What was chosen, as numbers: ``bins`` `[n, n_names]` count the values of all choices together, name after name,
    and stand at the end, in one bin for all, where there was no such choice; ``sizes`` `[n_names]` says how many
    values each has."""

    names: tuple[str, ...]
    bins: Counts
    sizes: Counts

    @classmethod
    def of(cls, params: Sequence[Mapping[str, Any]]) -> Choices:
        """Of the choices of a sampler; "decay[none|head]", where fewer values were left to it, is "decay" too."""
        merged = [{name.partition("[")[0]: value for name, value in chosen.items()} for chosen in params]
        values: dict[str, dict[Hashable, None]] = {}
        for chosen in merged:
            for name, value in chosen.items():
                values.setdefault(name, {})[value] = None
        names = tuple(sorted(values))
        numbers = {
            pair: number for number, pair in enumerate((name, value) for name in names for value in values[name])
        }
        bins = [[numbers.get((name, chosen.get(name, _ABSENT)), len(numbers)) for name in names] for chosen in merged]
        sizes = np.array([len(values[name]) for name in names], dtype=np.int64)
        return cls(names=names, bins=np.array(bins, dtype=np.int64), sizes=sizes)

    def counts(self, chosen: Mask) -> Counts:
        """How many of the `chosen` candidates `[n]` have each value: `[n_values]`."""
        total = int(self.sizes.sum())
        return np.bincount(self.bins[chosen].ravel(), minlength=total + 1)[:total]

    def sums(self, of_values: Values | Counts | Mask) -> Values:
        """Sums over the values of each choice: `[n_names]`."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.add.reduceat(of_values.astype(np.float64), starts)


def divergences(choices: Choices, losses: Values, rows: Mask | None = None) -> Values:
    """The importance of each choice among `rows`, in no unit: how far the best quarter's values differ from all's.

    The Pearson divergence of the smoothed shares among candidates that have the choice, weighted by how often the
    best have it: `[n_names]`. A choice that only ever took one value, or that none of the best has, has none.
    """
    rows = np.ones(len(losses), dtype=bool) if rows is None else rows
    edge = ceil(BEST * int(rows.sum())) - 1
    best = rows & (losses <= np.partition(losses[rows], edge)[edge])
    everyone, among_best = choices.counts(rows), choices.counts(best)
    have, best_have = choices.sums(everyone), choices.sums(among_best)
    shares = _shares_of_values(choices, everyone)
    distances = choices.sums(shares * (_shares_of_values(choices, among_best) / shares - 1.0) ** 2)
    weights = (best_have / best.sum()) ** 2 / np.maximum(have / rows.sum(), 1e-12) * (best.sum() / rows.sum()) ** 2
    found: Values = np.where((choices.sizes > 1) & (have > 1) & (best_have > 0), weights * distances, 0.0)
    return found


def _shares_of_values(choices: Choices, counts: Counts) -> Values:
    """Smoothed shares of each choice's values: kernels at those that were seen, and a uniform prior of weight one."""
    size = np.repeat(choices.sizes, choices.sizes)
    total = np.repeat(choices.sums(counts), choices.sizes)
    kernels = np.repeat(choices.sums(counts > 0), choices.sizes) + 1.0
    smoothed = (counts + total / kernels) / (1.0 + size / kernels)
    shares: Values = (smoothed + 1.0 / size) / (total + 1.0)
    return shares


def _of_half(choices: Choices, values: Values, rng: np.random.Generator) -> Values:
    """The shares of importance over a random half of the candidates."""
    rows = np.zeros(len(values), dtype=bool)
    rows[rng.permutation(len(values))[: ceil(len(values) / 2)]] = True
    return _shares(divergences(choices, values, rows))


def _shares(importances: Values) -> Values:
    total = importances.sum()
    shares: Values = importances / total if total else importances
    return shares
