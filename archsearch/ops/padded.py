"""PaddedRows: sequences that lie end to end as rows of one length, for forms that must not go on across them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.ops.laid_out import packed_lengths


@dataclass(frozen=True, kw_only=True)
class PaddedRows:
    """Where packed tokens stand in rows: token t is place ``place[t]`` of row ``row[t]``, of ``rows`` rows of
    ``longest`` places."""

    row: Tensor
    place: Tensor
    rows: int
    longest: int

    @classmethod
    def of(cls, cu_seqlens: Tensor, tokens: int) -> PaddedRows:
        """The rows of sequences with bounds ``cu_seqlens`` `[N + 1]`, which are read: raises `ShapeError` unless they
        rise from 0 to `tokens`. Inside `torch.compile`, where nothing may be read, every row has places for all."""
        longest = tokens
        if not torch.compiler.is_compiling():
            longest = max(packed_lengths(cu_seqlens, tokens), default=0)
        order = torch.arange(tokens, device=cu_seqlens.device)
        row = torch.searchsorted(cu_seqlens[1:], order, right=True)
        return cls(row=row, place=order - cu_seqlens[row], rows=len(cu_seqlens) - 1, longest=longest)

    def pad(self, x: Tensor) -> Tensor:
        """Packed `[1, T, ...]` as `[N, longest, ...]`, zeros after the last token of each."""
        return x.new_zeros(self.rows, self.longest, *x.shape[2:]).index_put((self.row, self.place), x[0])

    def unpad(self, x: Tensor) -> Tensor:
        """`[N, longest, ...]` back as packed `[1, T, ...]`."""
        return x[self.row, self.place][None]
