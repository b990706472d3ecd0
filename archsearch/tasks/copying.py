"""copying: symbols scattered among noise are written out again in their order (selective copying)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, MAX_WORDS, Task, TaskOptions, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import starts
from archsearch.tasks.splits import Split

COPY = 0
_BUCKETS = 4


class CopyingOptions(TaskOptions):
    """Sizes of a sequence: symbols, scattered among noise.

    ``seq_len``: tokens of a sequence.
    ``items``: symbols to copy.
    ``symbols``: kinds of symbols.
    ``noise_tokens``: kinds of noise.
    ``feedback``: whether the symbols that were due so far are given while copying; else only the mark is.
    """

    seq_len: int = Field(default=64, ge=2, le=MAX_LENGTH)
    items: int = Field(default=8, ge=1, le=MAX_LENGTH)
    symbols: int = Field(default=64, ge=2, le=MAX_WORDS)
    noise_tokens: int = Field(default=16, ge=1, le=MAX_WORDS)
    feedback: bool = True

    @property
    def read(self) -> int:
        """Positions before the copy."""
        return self.seq_len - self.items

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.items > self.read:
            raise ValueError(
                f"{self.items} items are read and written, which takes {2 * self.items} positions: "
                f"raise seq_len = {self.seq_len}"
            )
        return self


class Copying(Task):
    """Symbols stand among noise at random places; at a mark, and in the positions after it, the model must predict
    the first symbol, the second, and so on.

    Tokens: the mark, symbols, noise. After the selective copying of Mamba (Gu and Dao 2023, arXiv 2312.00752,
    section 4.1.1) and MAD (Poli et al. 2024, arXiv 2403.17844).
    """

    name: ClassVar[str] = "copying"
    summary: ClassVar[str] = "symbols among noise, copied in order"
    options_type: ClassVar[type[TaskOptions]] = CopyingOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "easy": {},
        "standard": {"seq_len": 128, "items": 16, "symbols": 32},
        "blind": {"feedback": False},
    }
    default_setting: ClassVar[str] = "standard"

    options: CopyingOptions

    @property
    def vocab_size(self) -> int:
        return 1 + self.options.symbols + self.options.noise_tokens

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.symbols

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        tokens = 1 + size.symbols + rng.integers(size.noise_tokens, size=(count, size.seq_len))
        symbols = 1 + rng.integers(size.symbols, size=(count, size.items))
        tokens[np.arange(count)[:, None], starts(rng, count, size.read, size.items, 1)] = symbols
        tokens[:, size.read :] = COPY
        if size.feedback:
            tokens[:, size.read + 1 :] = symbols[:, :-1]
        targets = np.full_like(tokens, IGNORE)
        targets[:, size.read :] = symbols
        return Batch(tokens, targets)

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """``accuracy[items 1-4]`` and so on: the accuracy of each quarter of the copy."""
        size = self.options
        item = np.broadcast_to(np.arange(size.seq_len) - size.read, batch.tokens.shape)
        edges = sorted({size.items * number // _BUCKETS for number in range(_BUCKETS + 1)})
        kinds = {f"items {start + 1}-{end}": (item >= start) & (item < end) for start, end in pairwise(edges)}
        return share_by(batch, predictions, kinds)
