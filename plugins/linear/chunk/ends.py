"""Chunk ends: what the tokens of a chunk read of the state before it, and leave of states after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ChunkEnds:
    """Rows and keys `[N, B, H, C, K]` of chunks, and what multiplies them, None for nothing: the rows ``before``, as
    they meet the state at the start, the keys ``after``, as they are left at the end, `[N, B or 1, H, C or 1, 1 or K]`;
    and a state over the ``whole`` chunk, `[N, B or 1, H, 1, 1 or K]`."""

    rows: Sequence[Tensor]
    keys: Tensor
    before: Tensor | float | None
    after: Tensor | None
    whole: Tensor | None

    def from_start(self, row: int) -> Tensor:
        """The rows of one kind as they meet the state at the start of their chunk."""
        return self.rows[row] if self.before is None else self.rows[row] * self.before

    def to_end(self) -> Tensor:
        """The keys as they are left at the end of their chunk."""
        return self.keys if self.after is None else self.keys * self.after

    def left(self, count: int) -> Sequence[Tensor | None]:
        """What each of `count` chunks leaves of a state, `[B or 1, H, 1 or K, 1]`, None for all of it."""
        return [None] * count if self.whole is None else self.whole.mT.unbind()
