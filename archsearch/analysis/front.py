"""Pareto fronts: which points nothing else beats in every objective."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt
import pandas as pd

from archsearch.analysis.objectives import Objectives, Values, losses, signs

Mask = npt.NDArray[np.bool_]


def front(points: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """The rows of `points` that no other eligible row dominates, by the first objective that is minimised.

    Eligible are complete candidates within the budget, exercised, with a value for every objective; what is not
    eligible neither enters nor dominates. Candidates with equal values are all kept.
    """
    chosen = points[eligible(points, objectives)]
    chosen = chosen[non_dominated(losses(chosen, objectives))]
    order = np.argsort(signs(objectives) < 0, kind="stable")  # minimised objectives first
    keys = losses(chosen, objectives)[:, order]
    rows = np.lexsort((chosen["trial"].to_numpy(), *keys.T[::-1]))
    return chosen.iloc[rows].reset_index(drop=True)


def eligible(points: pd.DataFrame, objectives: Objectives) -> Mask:
    """Which rows may stand on a front: `[n_points]`."""
    allowed = (points["state"] == "complete") & points["feasible"] & points["exercised"]
    mask: Mask = allowed.to_numpy(dtype=bool) & np.isfinite(losses(points, objectives)).all(axis=1)
    return mask


def non_dominated(values: Values) -> Mask:
    """Which rows of `values` `[n, n_objectives]` (less is better) no other row dominates: `[n]`.

    One row dominates another when it is nowhere worse and somewhere better, so that equal rows stand together. A row
    with NaN neither stands nor dominates. n log n rows are looked at for up to three objectives, n times the size
    of the front for more.
    """
    mask: Mask = np.logical_not(np.isnan(values).any(axis=1))
    unique, inverse = np.unique(values[mask] + 0.0, axis=0, return_inverse=True)
    kept = _sweep(unique) if values.shape[1] <= 3 else _peel(unique)
    mask[mask] = kept[inverse.reshape(-1)]
    return mask


def _sweep(values: Values) -> Mask:
    """For sorted, distinct rows of up to three columns: keeps the stairs that the rows so far make in columns 2 and 3.

    Kung, Luccio and Preparata, "On finding the maxima of a set of vectors" (J. ACM 22, 1975), section 3.
    """
    padded = np.zeros((len(values), 3))
    padded[:, : values.shape[1]] = values
    kept = np.zeros(len(values), dtype=bool)
    ys: list[float] = []  # ascending
    zs: list[float] = []  # descending: zs[i] is the least third value among rows with a second value <= ys[i]
    for index, (_, y, z) in enumerate(padded.tolist()):
        before = bisect_right(ys, y)
        if before and zs[before - 1] <= z:
            continue
        kept[index] = True
        start = end = bisect_left(ys, y)
        while end < len(ys) and zs[end] >= z:
            end += 1
        ys[start:end], zs[start:end] = [y], [z]
    return kept


def _peel(values: Values) -> Mask:
    """For sorted, distinct rows: the first that is left is on the front, and takes away what it dominates."""
    kept = np.zeros(len(values), dtype=bool)
    left = np.arange(len(values))
    while len(left):
        kept[left[0]] = True
        beaten = (values[left[1:]] >= values[left[0]]).all(axis=1)
        left = left[1:][~beaten]
    return kept
