"""Decay by channel within chunks: by factors as far as no channel has decayed too far for them, else by halves.

    P_ij = sum_c r_ic k_jc exp(G_ic - G_jc) = (r_i exp G_i) . (k_j exp -G_j)

with G the sums of the log decays from the start of the chunk. The first factor is scaled up and the second down by a
power of 2, so that the middle of what floats can hold lies in the middle of the chunk, and no digit changes. Rows
beyond those that can be had so are taken from `channel_products`; which these are, the tokens up to each decide.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..chunk.ends import ChunkEnds
from ..chunk.gate_sums import SMALL, decays, forgetting, running_sums, triangles
from .products import channel_products

_SCALE = 2.0**80
"""What exp G is scaled by; the least number that keeps its digits is 2^-126."""

_MILD = -110.0
"""The sum of log decays down to which rows are factored: exp of it is just above 2^-160."""

_LEAST = 2.0**-80
"""No scaled factor of a row that is taken is less; of others the inverse stays finite."""


def channel_decay(rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) `[N, B, H, C, C]` of each of `rows`, `[N, B, H, C, K]` as `k` and `log_decay` are, and the ends.

    C is a power of two. The first product is zero above the diagonal; of the others only what is below the diagonal may
    be read.
    """
    if not _may_look(log_decay):
        products, before, after = channel_products(rows, k, log_decay)
        whole = before[..., -1:, :].exp()
        return products, ChunkEnds(rows=rows, keys=k, before=before.exp(), after=after.exp(), whole=whole)
    sums = running_sums(log_decay.detach())
    made: tuple[Tensor, ...] = _FactoredProducts.apply(sums, log_decay, k, *rows)  # type: ignore[no-untyped-call]
    products, decayed = made[: len(rows)], made[len(rows) :]
    lowest = float(sums.min()) if sums.numel() else 0.0
    if lowest <= _MILD:
        is_mild = sums.amin(-1, keepdim=True).cummin(-2).values > _MILD
        exact, _, _ = channel_products(rows, k, log_decay)
        products = tuple(torch.where(is_mild, near, far) for near, far in zip(products, exact, strict=True))
    unscaled: float | Tensor = 1 / _SCALE if lowest > SMALL else torch.where(sums > SMALL, 1 / _SCALE, 0.0).to(k.dtype)
    after, whole = _DecayAfter.apply(sums, log_decay), forgetting(log_decay).sum(-2, keepdim=True).exp()  # type: ignore[no-untyped-call]
    return products, ChunkEnds(rows=decayed, keys=k, before=unscaled, after=after, whole=whole)


def _may_look(log_decay: Tensor) -> bool:
    """Whether a branch may depend on gates: neither on a device that would have to be waited for, nor in a compiled
    graph."""
    return log_decay.device.type == "cpu" and not torch.compiler.is_compiling()


class _FactoredProducts(torch.autograd.Function):
    """The products of every kind of rows, and those rows times exp of ``sums``, which are of ``log_decay``, scaled."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, log_decay: Tensor, k: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        decay = F.threshold(sums, _MILD, -torch.inf).exp_().mul_(_SCALE).to(k.dtype)
        growth = decay.clamp(min=_LEAST).reciprocal_()
        decayed, grown = tuple(row * decay for row in rows), k * growth
        products = tuple(row @ grown.mT for row in decayed)
        products[0].tril_()  # above the diagonal there may be infinities
        ctx.save_for_backward(k, rows[0], decay, growth, grown, *decayed)
        return *products, *decayed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        k, first, decay, growth, grown, *decayed = ctx.saved_tensors
        count = len(decayed)
        # Not by the factors: a token's pair with itself decays by nothing, and what rounding left of that in the
        # gradient of strong gates would be most of it.
        own = grads[0].diagonal(dim1=-2, dim2=-1)[..., None]
        below = [d_product.tril(-1) for d_product in grads[:count]]
        d_grown = functools.reduce(torch.Tensor.add_, (d.mT @ row for d, row in zip(below, decayed, strict=True)))
        d_sums, d_k = (d_grown * grown).neg_(), (d_grown * growth).addcmul_(own, first)
        d_rows = []
        for d_product, d_out, row in zip(below, grads[count:], decayed, strict=True):
            d_row = (d_product @ grown).add_(d_out)
            d_sums.addcmul_(d_row, row)
            d_rows.append(d_row.mul_(decay))
        d_rows[0].addcmul_(own, k)
        lower, _ = triangles(k.shape[-2], k.dtype, k.device)
        return None, lower.mT @ d_sums, d_k, *d_rows


class _DecayAfter(torch.autograd.Function):
    """Decays from after each token to the end of its chunk, of running sums of the log decays.

    Its gradient is made of sums too: the factors that lead to the end from the middle would leave their rounding.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, log_decay: Tensor) -> Tensor:
        after = decays(sums[..., -1:, :] - sums, log_decay.dtype)
        ctx.save_for_backward(after)
        return after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_after: Tensor) -> tuple[None, Tensor]:
        (after,) = ctx.saved_tensors
        _, below = triangles(after.shape[-2], after.dtype, after.device)
        return None, below @ (d_after * after)
