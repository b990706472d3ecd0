"""Expected hypervolume improvement: what a candidate is thought to add to a front, exactly, over boxes."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import ndtr

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Values

_CHUNK = 4_000_000
"""Numbers of an array that is held at a time."""


def free_boxes(front: Values, edge: Values) -> tuple[Values, Values]:
    """The part of the space below `edge` `[d]` that no row of `front` `[n, d]` dominates (less is better), as disjoint
    boxes: their lower corners, which may be minus infinity, and upper ones, each `[boxes, d]`.

    By slices along the last objective, each with the rows that lie below it, down to one.
    """
    front = front[(front < edge).all(axis=1)]
    front = front[non_dominated(front)] if len(front) else front
    if front.shape[1] == 1:
        top = front.min() if len(front) else edge[0]
        return np.array([[-np.inf]]), np.array([[top]])
    order = np.argsort(front[:, -1], kind="stable")
    front = front[order]
    levels = np.unique(front[:, -1])
    lows, highs = [], []
    bounds = np.concatenate([[-np.inf], levels, edge[-1:]])
    for low, high in itertools.pairwise(bounds):
        below = front[front[:, -1] <= low, :-1]
        inner_low, inner_high = free_boxes(below, edge[:-1])
        lows.append(np.column_stack([inner_low, np.full(len(inner_low), low)]))
        highs.append(np.column_stack([inner_high, np.full(len(inner_high), high)]))
    return np.vstack(lows), np.vstack(highs)


def expected_improvement(
    mean: Values, deviation: Values, front: Values, edge: Values, ideal: Values | None = None
) -> Values:
    """`[m]`: the hypervolume that candidates are expected to add to `front` `[n, d]` below `edge` `[d]`, for losses
    that are independent and normal with `mean` and `deviation` `[m, d]`, exact where a deviation is 0.

    A point adds what it dominates of the free boxes, and dominates one as far as its coordinates do: the expectation is
    a sum over boxes of products over objectives (Emmerich, Deutz and Klinkenberg, "Hypervolume-based expected
    improvement: monotonicity properties and exact computation", CEC 2011). ``ideal`` `[d]` is the least loss that can
    be, minus infinity where there is none: nothing is expected beyond it.
    """
    low, high = free_boxes(front, edge)
    if ideal is not None:
        low, high = np.maximum(low, ideal), np.maximum(high, ideal)
    total = np.zeros(len(mean))
    step = max(1, _CHUNK // max(1, len(mean)))
    for begin in range(0, len(low), step):
        part = np.ones((len(mean), len(low[begin : begin + step])))
        for axis in range(mean.shape[1]):
            ends, places = np.unique(
                np.concatenate([low[begin : begin + step, axis], high[begin : begin + step, axis]]), return_inverse=True
            )
            below = _expected_depth(mean[:, axis], deviation[:, axis], ends)
            count = part.shape[1]
            part *= below[:, places[count:]] - below[:, places[:count]]
        total += part.sum(axis=1)
    return total


def _expected_depth(mean: Values, deviation: Values, ends: Values) -> Values:
    """`[m, ends]`: how far a normal value is expected to lie below each end, 0 above it."""
    bounded = np.where(np.isfinite(ends), ends, 0.0)
    away = bounded[None] - mean[:, None]
    wide = np.maximum(deviation[:, None], 1e-300)
    z = np.clip(away / wide, -40.0, 40.0)
    depth = away * ndtr(z) + deviation[:, None] * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    depth = np.where(deviation[:, None] > 0, depth, np.maximum(away, 0.0))
    return np.where(np.isfinite(ends)[None], np.maximum(depth, 0.0), 0.0)
