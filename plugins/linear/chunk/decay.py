"""Decay within chunks: weighted products of pairs of tokens, and the decay of states from chunk to chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..channel.decay import channel_decay
from ..decays import Decay
from .ends import ChunkEnds
from .gate_sums import decays, running_sums, triangles


def decayed_products(
    rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor | None, decay: Decay
) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) `[N, B, H, C, C]` of each of `rows`, `[N, B, H, C, K]` as `k` is, and the decays at the ends.

    ``log_decay`` is `[N, B or 1, H, C, 1 or K]` of the kind ``decay``, or None. The first product is zero above the
    diagonal; of the others only what is below the diagonal may be read. What a token gets depends on nothing of a later
    token or of another sequence, to the last bit.
    """
    if log_decay is None:
        first, *others = (row @ k.mT for row in rows)
        lower, _ = triangles(k.shape[-2], k.dtype, k.device)
        return (first * lower, *others), ChunkEnds(rows=rows, keys=k, before=None, after=None, whole=None)
    if decay == "channel":
        return channel_decay(rows, k, log_decay)
    pairs, before, after = _HeadDecay.apply(log_decay[..., 0])  # type: ignore[no-untyped-call]
    products = tuple((row @ k.mT) * pairs for row in rows)
    return products, ChunkEnds(rows=rows, keys=k, before=before, after=after, whole=before[..., -1:, :])


class _HeadDecay(torch.autograd.Function):
    """Decays of pairs `[..., C, C]`, and `[..., C, 1]` from the start and to the end, of log decays `[..., C]`."""

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sums, dtype = running_sums(log_decay[..., None]), log_decay.dtype
        pairs = (sums - sums.mT).to(dtype).exp_().tril_()
        before, after = decays(sums, dtype), decays(sums[..., -1:, :] - sums, dtype)
        ctx.save_for_backward(pairs, before, after)
        return pairs, before, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_pairs: Tensor, d_before: Tensor, d_after: Tensor) -> Tensor:
        """A gate is in every pair of a token from it on with one before it."""
        pairs, before, after = ctx.saved_tensors
        lower, below = triangles(pairs.shape[-1], pairs.dtype, pairs.device)
        with_earlier = (d_pairs * pairs) @ below.mT
        d_ends = lower.mT @ (d_before * before) + below @ (d_after * after)
        d_gates: Tensor = with_earlier.mul_(lower).sum(-2).add_(d_ends[..., 0])
        return d_gates
