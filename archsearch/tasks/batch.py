"""Batch: sequences and what must be predicted at each position, and what can be wrong with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
"""The target of a position that is not scored."""


@dataclass(frozen=True)
class Batch:
    """Sequences and what must be predicted at each position.

    ``targets[b, t]`` is what the model must give after reading ``tokens[b, : t + 1]``, `IGNORE` where nothing is
    scored. Both are int64 [B, T].
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which positions count: [B, T]."""
        scored: NDArray[np.bool_] = self.targets != IGNORE
        return scored

    def take(self, rows: NDArray[np.bool_] | slice) -> Batch:
        """Some of the rows."""
        return Batch(tokens=self.tokens[rows], targets=self.targets[rows])

    def equals(self, other: Batch) -> bool:
        """Whether both hold the same numbers."""
        return np.array_equal(self.tokens, other.tokens) and np.array_equal(self.targets, other.targets)


def fault_of(batch: object, *, rows: int, seq_len: int | None, vocab_size: int) -> str | None:
    """What is wrong with a batch that should have `rows` sequences of `seq_len` tokens (None: of any length) below
    `vocab_size`, as the end of a sentence that begins with "gave"; None for nothing."""
    if not isinstance(batch, Batch):
        return f"a {type(batch).__name__}, wanted an archsearch.tasks.Batch"
    return (
        _fault_of_array("tokens", batch.tokens, rows, seq_len)
        or _fault_of_array("targets", batch.targets, rows, batch.tokens.shape[1])
        or _fault_of_values("token", batch.tokens, vocab_size)
        or _fault_of_targets(batch.targets, vocab_size)
    )


def _fault_of_array(name: str, array: object, rows: int, seq_len: int | None) -> str | None:
    if not isinstance(array, np.ndarray):
        return f"{name} that are a {type(array).__name__}, wanted a numpy array of int64"
    if array.dtype != np.int64:
        return f"{name} of {array.dtype}, wanted int64"
    wanted = (rows, seq_len if seq_len is not None or array.ndim != 2 else array.shape[1])
    if array.shape != wanted or not array.shape[1]:
        return f"{name} {list(array.shape)}, wanted [{rows}, {'T' if seq_len is None else seq_len}]"
    return None


def _fault_of_values(name: str, values: NDArray[np.int64], vocab_size: int) -> str | None:
    wrong = [int(value) for value in (values.min(), values.max()) if not 0 <= value < vocab_size]
    if not wrong:
        return None
    return f"the {name} {wrong[0]}, wanted 0 to {vocab_size - 1}: vocab_size = {vocab_size}"


def _fault_of_targets(targets: NDArray[np.int64], vocab_size: int) -> str | None:
    scored = targets[targets != IGNORE]
    if not scored.size:
        return f"no target that is scored: all are {IGNORE}"
    return _fault_of_values("target", scored, vocab_size)
