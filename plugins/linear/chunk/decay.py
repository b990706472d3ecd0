"""Decay within chunks: weighted products of pairs of tokens, and the decay of states from chunk to chunk."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..channel.decay import channel_decay
from ..decays import Decay
from .ends import ChunkEnds
from .gate_sums import SMALL, decays, running_sums, triangles


def decayed_products(
    rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor | None, decay: Decay
) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) `[N, B, H, C, C]` of each of `rows`, `[N, B, H, C, K]` as `k` is, and the decays at the ends.

    ``log_decay`` is `[N, B or 1, H, C, 1 or K]` of the kind ``decay``, or None; constant as `chunked`
    has it. The first product is zero above the diagonal; of the others only what is below the diagonal may be read.
    What a token gets depends on nothing of a later token or of another sequence, to the last bit.
    """
    if log_decay is None:
        first, *others = (row @ k.mT for row in rows)
        lower, _ = triangles(k.shape[-2], k.dtype, k.device)
        return (first * lower, *others), ChunkEnds(rows=rows, keys=k, before=None, after=None, whole=None)
    if decay == "channel":
        return channel_decay(rows, k, log_decay)
    if torch.is_grad_enabled():
        made: Sequence[Tensor] = _HeadProducts.apply(log_decay[..., 0], k, *rows)  # type: ignore[no-untyped-call]
    else:
        _, *made = _head_products(log_decay, k, rows)
    before, after, *products = made
    whole, count = before[..., -1:, :], len(k)
    if len(before) != count:  # constant: of the first chunk, and perhaps of the last
        before, after, whole = before[:1], _of_chunks(after, count), _of_chunks(whole, count)
    return tuple(products), ChunkEnds(rows=rows, keys=k, before=before, after=after, whole=whole)


def _of_chunks(x: Tensor, count: int) -> Tensor:
    """`[1 or 2, ...]` of the first chunk and perhaps of the last, as `[count, ...]`."""
    first = x[:1].expand(count + 1 - len(x), *x.shape[1:])
    return first if len(x) == 1 else torch.cat((first, x[1:]))


def _head_products(log_decay: Tensor, k: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Decays between the tokens of a chunk, and what `_HeadProducts` makes, of log decays `[M, B or 1, H, C, 1]`."""
    sums, dtype = running_sums(log_decay), log_decay.dtype
    pairs = _pairs(sums if len(sums) == len(k) else sums[:1], dtype)
    before, after = decays(sums, dtype), decays(sums[..., -1:, :] - sums, dtype)
    return pairs, before, after, *((row @ k.mT).mul_(pairs) for row in rows)


class _HeadProducts(torch.autograd.Function):
    """Decays `[M, B or 1, H, C, 1]` from the start and to the end, of log decays `[M, B or 1, H, C]`, and the products
    `[N, B, H, C, C]` decayed between their tokens; M is N, or the first chunk's decays hold inside of all."""

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor, k: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        pairs, before, after, *products = _head_products(log_decay[..., None], k, rows)
        ctx.save_for_backward(pairs, before, after, k, *rows, *products)
        return before, after, *products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_before: Tensor, d_after: Tensor, *d_products: Tensor) -> tuple[Tensor | None, ...]:
        pairs, before, after, k, *saved = ctx.saved_tensors
        rows, products = saved[: len(d_products)], saved[len(d_products) :]
        scores = [d_product * pairs for d_product in d_products]
        d_rows = [d_score @ k for d_score in scores]
        d_k = functools.reduce(torch.Tensor.add_, (d.mT @ row for d, row in zip(scores, rows, strict=True)))
        if not ctx.needs_input_grad[0]:
            return None, d_k, *d_rows
        weighed = functools.reduce(torch.Tensor.add_, (d * p for d, p in zip(d_products, products, strict=True)))
        d_gates = _gate_gradient(weighed.sum_to_size(pairs.shape), d_before * before, d_after * after)
        return d_gates, d_k, *d_rows


def _pairs(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Decays `[..., C, C]` between tokens whose `sums` `[..., C, 1]` are float64, as `decays` has them: exp is many
    times slower where it leaves what float32 can hold, above the diagonal too."""
    between = _differences(sums, dtype).clamp_(min=SMALL, max=0.0).exp_()
    return torch.threshold_(between, math.exp(SMALL) * (1 + 1e-6), 0.0).tril_()


def _differences(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums `[..., C, 1]` less those of other tokens, `[..., C, C]`: in float32 by two numbers for each sum."""
    if dtype == torch.float64:
        return sums - sums.mT
    high = sums.to(dtype)
    low = (sums - high).to(dtype)
    return (high - high.mT).add_(low).sub_(low.mT)


def _gate_gradient(d_pairs: Tensor, d_before: Tensor, d_after: Tensor) -> Tensor:
    """Of log decays `[M, ..., C]`, from the gradients of their sums: a gate is in every pair of a token from it on with
    one before it; where pairs are of the first chunk alone, `[1, ..., C, C]`, in those of that one."""
    lower, below = triangles(d_pairs.shape[-1], d_pairs.dtype, d_pairs.device)
    d_gates: Tensor = (lower.mT @ d_before + below @ d_after)[..., 0]
    d_gates[: len(d_pairs)] += (d_pairs @ below.mT).mul_(lower).sum(-2)
    return d_gates
