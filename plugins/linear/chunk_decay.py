"""Decay within chunks: weighted products of pairs of tokens, and the decay of states from chunk to chunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .channel_products import channel_products

_FORGOTTEN = -1e4
"""A log decay below which nothing is left even in float64, so that -inf may be given."""


_SHORTEST = 16
"""Tokens of the shortest chunk that is chosen so that its decays can be factored."""

_MILD = -60.0
"""The sum of log decays over half a chunk down to which exp of its negative is kept as a factor."""


@dataclass(frozen=True, kw_only=True)
class ChunkEnds:
    """Rows and keys `[N, B, H, C, K]` of chunks, and the decays `[N, B, H, C, 1 or K]` between a token and the ends
    of its chunk, None where nothing decays: from the start up to and with the token, and from after it to the end."""

    rows: tuple[Tensor, ...]
    keys: Tensor
    before: Tensor | None
    after: Tensor | None

    def from_start(self, row: int) -> Tensor:
        """The rows of one kind as they meet the state at the start of their chunk."""
        return self.rows[row] if self.before is None else self.rows[row] * self.before

    def to_end(self) -> Tensor:
        """The keys as they are left at the end of their chunk."""
        return self.keys if self.after is None else self.keys * self.after

    def left(self, count: int) -> Sequence[Tensor | None]:
        """What each of `count` chunks leaves of a state, `[B, H, 1 or K, 1]`, None for all of it."""
        return [None] * count if self.before is None else self.before[..., -1, :, None].unbind()


@dataclass(frozen=True, kw_only=True)
class _FactoredEnds(ChunkEnds):
    """``rows`` and ``keys`` are decayed already, from and to the middle of their chunk; ``first`` and ``second``
    `[N, B, H, 1, K]` are the decays over its halves."""

    first: Tensor
    second: Tensor

    def from_start(self, row: int) -> Tensor:
        return self.rows[row] * self.first

    def to_end(self) -> Tensor:
        return self.keys * self.second

    def left(self, count: int) -> Sequence[Tensor | None]:
        return (self.first * self.second)[..., 0, :, None].unbind()


def mild_length(log_decay: Tensor | None, size: int) -> int:
    """Tokens a chunk, `size` at most, for gates `[B, T, H, K]`: where they may be looked at, the longest power of two
    from 16 on over which no channel decays too far to be factored; else `size`."""
    if log_decay is None or log_decay.shape[-1] == 1 or not _may_look(log_decay):
        return size
    shorter = size
    while shorter >= _SHORTEST:
        gates = F.pad(log_decay, (0, 0, 0, 0, 0, -log_decay.shape[1] % shorter))
        if _is_mild(gates.unflatten(1, (-1, shorter // 2)).sum(2)):
            return shorter
        shorter //= 2
    return size


def _may_look(log_decay: Tensor) -> bool:
    """Whether a branch may depend on gates: in training alone, since what a token rounds to then depends on gates
    after it; and neither on a device that would have to be waited for, nor in a compiled graph."""
    return torch.is_grad_enabled() and log_decay.device.type == "cpu" and not torch.compiler.is_compiling()


def _may_be_summed(log_decay: Tensor) -> bool:
    """Whether `[N, B or 1, H, C, 1 or K]` may be one decay a head for all tokens and wants a gradient: that is a sum in
    which the parts of factors nearly cancel."""
    return log_decay.requires_grad and log_decay.shape[1] == 1 and log_decay.shape[-1] == 1


def _is_mild(halves: Tensor) -> bool:
    """Of the sums of log decays over the halves of chunks."""
    return halves.numel() == 0 or bool(halves.min() >= _MILD)


def decayed_products(
    rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor | None
) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) `[N, B, H, C, C]` of each of `rows`, `[N, B, H, C, K]` as `k` is, and the decays at the ends.

    ``log_decay`` is `[N, B or 1, H, C, 1 or K]`, or None. The first product is zero above the diagonal; of the others
    only what is below the diagonal may be read.
    """
    if log_decay is None:
        first, *others = (row @ k.mT for row in rows)
        mask = _lower_ones(k.shape[-2], k.dtype, k.device)
        return (first * mask, *others), ChunkEnds(rows=rows, keys=k, before=None, after=None)
    if _may_look(log_decay) and log_decay.shape[-2] > 1 and not _may_be_summed(log_decay):
        halves = log_decay.unflatten(-2, (2, -1)).sum(-2, dtype=torch.float64)
        if _is_mild(halves):
            return _factored_products(rows, k, log_decay, halves.exp().to(k.dtype))
    if log_decay.shape[-1] == 1:
        pairs, before, after = _head_decay(log_decay[..., 0])
        return tuple((row @ k.mT) * pairs for row in rows), ChunkEnds(rows=rows, keys=k, before=before, after=after)
    products, before, after = channel_products(rows, k, log_decay)
    return products, ChunkEnds(rows=rows, keys=k, before=before.exp(), after=after.exp())


def _factored_products(
    rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor, halves: Tensor
) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) = (row exp E) (k exp -E)^T, where E is the sum of `log_decay` from the middle of the chunk to the
    token, and less than `_MILD` from 0; ``halves`` `[..., 2, K]` are the decays over the halves."""
    made: tuple[Tensor, ...] = _FactoredProducts.apply(log_decay, k, *rows)  # type: ignore[no-untyped-call]
    start, end = halves.split(1, dim=-2)
    count = len(rows)
    ends = _FactoredEnds(rows=made[count:-1], keys=made[-1], before=None, after=None, first=start, second=end)
    return made[:count], ends


class _FactoredProducts(torch.autograd.Function):
    """The products of every kind of rows, those rows decayed from the middle, and the keys decayed to it."""

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor, k: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        exact = torch.float64  # a sum of 60 would lose six digits of its exponential
        decay = (_from_middle(k.shape[-2], exact, k.device) @ log_decay.to(exact)).exp_().to(k.dtype)
        growth = decay.reciprocal()
        decayed, grown = tuple(row * decay for row in rows), k * growth
        products = tuple(row @ grown.mT for row in decayed)
        products[0].tril_()  # above the diagonal there may be infinities
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(decay, growth, grown, *decayed)
        return *products, *decayed, grown

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, ...]:
        decay, growth, grown, *decayed = ctx.saved_tensors
        size, count = grown.shape[-2], len(decayed)
        none = grown.new_zeros(size, size).expand(*grown.shape[:-1], size)
        d_products = [none if grad is None else grad for grad in grads[:count]]
        d_products[0] = d_products[0].tril()
        d_grown = _sum(grads[-1], *(d.mT @ row for d, row in zip(d_products, decayed, strict=True)))
        d_exponents = (d_grown * grown).neg_()
        d_rows = []
        for d_product, d_out, row in zip(d_products, grads[count:-1], decayed, strict=True):
            d_row = _sum(d_out, d_product @ grown)
            d_exponents.addcmul_(d_row, row)
            d_rows.append(d_row.mul_(decay))
        sums = _from_middle(size, grown.dtype, grown.device)
        return sums.mT @ d_exponents.sum_to_size(decay.shape), d_grown.mul_(growth), *d_rows


def _sum(first: Tensor | None, *terms: Tensor) -> Tensor:
    """Of what may be missing and of terms, the first of which is overwritten."""
    total = functools.reduce(torch.Tensor.add_, terms)
    return total if first is None else total.add_(first)


def _head_decay(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decays of pairs `[..., C, C]`, and `[..., C, 1]` from the start and to the end, of log decays `[..., C]`.

    Sums over spans of tokens are products with constant zeros and ones: no two large sums are ever subtracted, so
    that gates of -1000 leave their neighbours exact.
    """
    gates = log_decay.clamp(min=_FORGOTTEN)
    size = gates.shape[-1]
    spans, above, ends = _span_masks(size, gates.dtype, gates.device)
    pairs = torch.addmm(above, gates.reshape(-1, size), spans).exp().view(*gates.shape, size)
    before, after = torch.split((gates @ ends).exp()[..., None], size, dim=-2)
    return pairs, before, after


@lru_cache(maxsize=16)
def _lower_ones(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        return torch.ones(size, size, dtype=dtype, device=device).tril()


@lru_cache(maxsize=16)
def _from_middle(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`[C, C]` that sums gates from after the last token of the first half up to and with each token, negative where
    the token comes before it."""
    with torch.inference_mode(False):
        index = torch.arange(size, device=device)
        token, gate, middle = index[:, None], index[None], size // 2 - 1
        after, before = (gate > middle) & (gate <= token), (gate <= middle) & (gate > token)
        return after.to(dtype) - before.to(dtype)


@lru_cache(maxsize=16)
def _span_masks(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Constants that gates `[..., C]` are multiplied with. ``spans`` `[C, C * C]` sums s = j+1..i for the pair
    (i, j), to which ``above`` `[C * C]` adds -inf for j > i; ``ends`` `[C, 2 C]` sums s <= i, then s > i."""
    with torch.inference_mode(False):
        lower = torch.ones(size, size, dtype=torch.bool, device=device).tril()  # [i, s]: s <= i
        spans = lower[:, None, :] & ~lower[None, :, :]  # [i, j, s]: j < s <= i
        above = torch.zeros(size, size, dtype=dtype, device=device).masked_fill(~lower, -torch.inf)
        ends = torch.cat([lower, ~lower])
        return spans.flatten(0, 1).to(dtype).mT.contiguous(), above.flatten(), ends.to(dtype).mT.contiguous()
