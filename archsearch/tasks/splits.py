"""Splits: which of training, validation and test a sequence belongs to, by its own tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
PARTS = 16
_PART: dict[str, int] = {"validation": 0, "test": 1}
_MULTIPLIER = 0x9E3779B97F4A7C15


def belongs(tokens: NDArray[np.int64], split: Split) -> NDArray[np.bool_]:
    """Which rows of `tokens` [B, T] are of `split`: [B].

    A hash of the whole row deals the rows into 16 parts: part 0 is validation, part 1 test, the rest training. It
    depends on nothing but the tokens, so no sequence can be in two splits, whatever seed or option drew it.
    """
    part = row_hash(tokens) % np.uint64(PARTS)
    mine: NDArray[np.bool_] = part >= len(_PART) if split == "train" else part == _PART[split]
    return mine


def row_hash(tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row of `tokens` [B, T]: [B]. A polynomial in an odd constant, modulo 2**64, mixed."""
    terms = (tokens.astype(np.uint64) + np.uint64(1)) * _powers(tokens.shape[1])
    return _mixed(terms.sum(axis=1, dtype=np.uint64))


def _powers(count: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(count, _MULTIPLIER, dtype=np.uint64), dtype=np.uint64)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
