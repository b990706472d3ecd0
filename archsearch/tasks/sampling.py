"""Sampling: random draws for a whole batch of rows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def distinct(rng: np.random.Generator, rows: int, pool: int, count: int) -> Ints:
    """`count` different numbers below `pool` for each row, in random order: [rows, count].

    Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987) for all rows together, then a shuffle: the cost grows
    with `count` and not with `pool`.
    """
    chosen = np.empty((rows, count), dtype=np.int64)
    draws = rng.integers(0, np.arange(pool - count + 1, pool + 1), size=(rows, count))
    for at in range(count):
        draw = draws[:, at]
        taken = (chosen[:, :at] == draw[:, None]).any(axis=1)
        chosen[:, at] = np.where(taken, pool - count + at, draw)
    return shuffled(rng, chosen)


def shuffled(rng: np.random.Generator, values: Ints) -> Ints:
    """Each row of `values` [rows, n] in a random order of its own."""
    return rng.permuted(values, axis=1)


def starts(rng: np.random.Generator, rows: int, length: int, count: int, width: int) -> Ints:
    """First positions of `count` blocks of `width` that do not overlap in `length` places: [rows, count], ascending.

    Every such placement is equally likely; ``count * width <= length`` is the caller's to check.
    """
    order = np.sort(distinct(rng, rows, length - count * (width - 1), count), axis=1)
    return order + np.arange(count) * (width - 1)
