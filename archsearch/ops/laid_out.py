"""LaidOut: queries, keys and values, and how the queries of each sequence lie against its keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from archsearch.ops.softmax import ShapeError

Flat: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""q, k, v, cu_seqlens, lengths: as custom ops of torch take a `LaidOut`."""


@dataclass(frozen=True)
class LaidOut:
    """q `[B, T, Hq, D]`, k `[B, S, Hkv, D]` and v `[B, S, Hkv, Dv]`, Hq a multiple of Hkv, laid out in one of three
    ways:

    - whole sequences: the T queries are the last T of S tokens;
    - ``lengths`` `[B]`: they are the last T of each sequence's first so many rows, and no row after them is seen;
    - packed by ``cu_seqlens`` `[N + 1]`, which rises from 0 to T: N sequences end to end, B = 1 and T = S.

    Nothing is checked as one is made: `check` does, in the name of the op that is called with it.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    _: KW_ONLY
    cu_seqlens: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether every sequence has all S tokens."""
        return self.cu_seqlens is None and self.lengths is None

    @property
    def flat(self) -> Flat:
        """The tensors side by side."""
        return self.q, self.k, self.v, self.cu_seqlens, self.lengths

    def check(self, op: str) -> None:
        """Raises `ShapeError` in the name of `op` unless the tensors' shapes fit together.

        What bounds and lengths hold is not read: they may lie on a device that would have to be waited for.
        """
        q, k, v = self.q, self.k, self.v
        shown = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
            raise ShapeError(f"{op}: {shown}: each must be [batch, tokens, heads, head_dim]")
        if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
            raise ShapeError(f"{op}: {shown}: batch, key tokens, key heads and head_dim must agree")
        if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
            raise ShapeError(f"{op}: {shown}: the query heads must be a multiple of the key heads")
        if q.shape[1] > k.shape[1]:
            raise ShapeError(f"{op}: {shown}: more queries than keys; the queries are the last of the keys' tokens")
        self._check_places(op, shown)

    def _check_places(self, op: str, shown: str) -> None:
        """Raises `ShapeError` unless bounds or lengths, at most one of them, fit the queries and keys that are
        `shown`."""
        q, k, _, cu_seqlens, lengths = self.flat
        if lengths is not None and lengths.shape != q.shape[:1]:
            raise ShapeError(f"{op}: {shown}, lengths {list(lengths.shape)}: lengths must be [batch]")
        if cu_seqlens is None:
            return
        if lengths is not None:
            raise ShapeError(f"{op}: cu_seqlens and lengths: packed sequences have no rows beside their own; give one")
        if q.shape[0] != 1 or q.shape[1] != k.shape[1]:
            raise ShapeError(f"{op}: {shown}: packed sequences need a batch of 1 and as many queries as keys")
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1:
            raise ShapeError(f"{op}: cu_seqlens {list(cu_seqlens.shape)}: must be [sequences + 1]")

    def no_outputs(self) -> Tensor:
        """Outputs `[B, T, Hq, Dv]` where B or T is 0, through which gradients, zeros, reach q, k and v."""
        return (self.q[..., :1] + 0 * (self.k.sum() + self.v.sum())).expand(*self.q.shape[:3], self.v.shape[3])

    def each_apart(self, op: str, form: Callable[..., Tensor], *more: Tensor) -> Tensor:
        """`form` of q, k, v and `more`, `[B, T, Hq, Dv]`, over sequences of one length at once, else over each apart.

        `more` `[B, T, ...]` are split like q. No tokens give `no_outputs`. Shapes that do not fit, and bounds and
        lengths, which are read, raise `ShapeError` in the name of `op`.
        """
        self.check(op)
        packed = None if self.cu_seqlens is None else packed_lengths(self.cu_seqlens, self.q.shape[1])
        filled = None if self.lengths is None else _filled_lengths(op, self.q, self.k, self.lengths)
        if self.q.numel() == 0:
            return self.no_outputs()
        if packed is not None:
            sizes = [length for length in packed if length]
            pieces = zip(*(torch.split(x, sizes, dim=1) for x in (self.q, self.k, self.v, *more)), strict=True)
            return torch.cat([form(*piece) for piece in pieces], dim=1)
        if filled is None:
            return form(self.q, self.k, self.v, *more)
        if min(filled) == max(filled):
            return form(self.q, self.k[:, : filled[0]], self.v[:, : filled[0]], *more)
        return torch.cat([self._alone(form, index, length, *more) for index, length in enumerate(filled)])

    def _alone(self, form: Callable[..., Tensor], index: int, length: int, *more: Tensor) -> Tensor:
        """`form` of one sequence over its first `length` rows."""
        row = slice(index, index + 1)
        return form(self.q[row], self.k[row, :length], self.v[row, :length], *(x[row] for x in more))


def packed_lengths(cu_seqlens: Tensor, tokens: int) -> list[int]:
    """Lengths of the packed sequences. Raises `ShapeError` unless the bounds rise from 0 to `tokens`."""
    bounds = [int(bound) for bound in cu_seqlens.tolist()]
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if bounds[0] != 0 or bounds[-1] != tokens or min(lengths, default=0) < 0:
        raise ShapeError(f"cu_seqlens = {bounds}: must rise from 0 to the number of tokens, {tokens}")
    return lengths


def _filled_lengths(op: str, q: Tensor, k: Tensor, lengths: Tensor) -> list[int]:
    """On the host. Raises `ShapeError` where one leaves no room for the queries, or passes the rows."""
    filled = [int(length) for length in lengths.tolist()]
    if any(not q.shape[1] <= length <= k.shape[1] for length in filled):
        raise ShapeError(
            f"{op}: lengths = {filled}: must lie between the {q.shape[1]} queries and the {k.shape[1]} rows"
        )
    return filled
