"""Products of rows and keys that decay by channel, without overflow and without cancellation.

P_ij = sum_c r_ic k_jc exp(g_(j+1)c + ... + g_ic) cannot be factored at large: exp(G_i) and exp(-G_j) overflow. It is
computed by halves. In a block of 2h tokens the rows of the right half and the keys of the left half meet at the last
token of the left half, which is in the past of every such row, so that both factors

    exp(sum of g from the anchor up to i)  and  exp(sum of g from after j up to the anchor)

are at most 1; the two halves are blocks of their own. The sums grow with the blocks by additions only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEW = 2
"""Terms of a sum up to which additions beat a batched product of matrices on a CPU."""


def channel_products(rows: tuple[Tensor, ...], k: Tensor, g: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Decayed causal products of each of `rows` with `k` under log decays `g`, all `[..., C, K]`, C a power of two.

    Returns P `[..., C, C]` of each, below the diagonal (for the first on it too) and zero elsewhere; the sums of g
    from the start up to and with each token; and those after each token to the end, both `[..., C, K]`.
    """
    lead = k.shape[:-2]
    flat = (x.expand_as(k).reshape(-1, *k.shape[-2:]) for x in (k, g, *rows))
    before, after, *products = (x.unflatten(0, lead) for x in _ChannelProducts.apply(*flat))  # type: ignore[no-untyped-call]
    return tuple(products), before, after


class _ChannelProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, g: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        count, size, _ = k.shape
        products = [k.new_zeros(count, size, size) for _ in rows]
        products[0].diagonal(dim1=-2, dim2=-1).copy_((rows[0] * k).sum(-1))
        before, after = g.clone(), torch.zeros_like(g)
        for half in _halves(size):
            row, key = _meeting(rows, k, before, after, half)[:2]
            met = _kinds(row @ key.mT, half).unbind(2)
            for product, corner in zip(products, met, strict=True):
                _corner(product, half).copy_(corner)
            _double(before, after, half)
        ctx.save_for_backward(k, g, *rows)
        return before, after, *products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_before: Tensor, d_after: Tensor, *d_products: Tensor) -> tuple[Tensor, ...]:
        k, g, *rows = ctx.saved_tensors
        diagonal = d_products[0].diagonal(dim1=-2, dim2=-1)[..., None]
        d_rows, d_k = [diagonal * k, *(torch.zeros_like(row) for row in rows[1:])], diagonal * rows[0]
        before, after = g.clone(), torch.zeros_like(g)
        exponents = []
        for half in _halves(k.shape[1]):
            row, key, to_row, from_key = _meeting(rows, k, before, after, half)
            corner = torch.cat([_corner(d_product, half) for d_product in d_products], dim=2)
            d_row, d_key = _product(corner, key), _product(corner.mT, row)
            for d_kind, d_met in zip(d_rows, _kinds(d_row, half).unbind(2), strict=True):
                _right(d_kind, half).addcmul_(d_met, to_row)
            _left(d_k, half).addcmul_(d_key, from_key)
            d_to_row = functools.reduce(torch.add, _kinds(row.mul_(d_row), half).unbind(2))
            exponents.append((d_to_row, key.mul_(d_key)))
            _double(before, after, half)
        return d_k, _gate_gradient(d_before, d_after, exponents), *d_rows


def _halves(size: int) -> Iterator[int]:
    """1, 2, 4 ... up to half of `size`."""
    half = 1
    while half < size:
        yield half
        half *= 2


def _meeting(
    rows: Sequence[Tensor], k: Tensor, before: Tensor, after: Tensor, half: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of the right halves, kind after kind, `[X, n, M h, K]` and keys of the left ones `[X, n, h, K]`, each
    decayed to or from the anchor, and those decays `[X, n, h, K]`."""
    to_row, from_key = _right(before, half).exp(), _left(after, half).exp()
    row = torch.cat([_right(kind, half) for kind in rows], dim=2)
    _kinds(row, half).mul_(to_row[:, :, None])
    return row, _left(k, half) * from_key, to_row, from_key


def _kinds(x: Tensor, half: int) -> Tensor:
    """Rows of every kind, `[X, n, M h, ...]`, apart: `[X, n, M, h, ...]`, a view."""
    return torch.unflatten(x, 2, (-1, half))


def _product(weights: Tensor, x: Tensor) -> Tensor:
    """`weights` `[..., I, S]` by `x` `[..., S, K]`."""
    count = weights.shape[-1]
    if count > _FEW:
        return weights @ x
    out = weights[..., :1] * x[..., :1, :]
    for s in range(1, count):
        out.addcmul_(weights[..., s : s + 1], x[..., s : s + 1, :])
    return out


def _gate_gradient(d_before: Tensor, d_after: Tensor, exponents: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Gradient of g `[X, C, K]` from those of the sums over whole chunks and of each level's exponents, by the
    transpose of `_double`."""
    d_before, d_after = d_before.clone(), d_after.clone()
    for level in reversed(range(len(exponents))):
        half = 1 << level
        _left(d_before, half)[..., -1, :] += _right(d_before, half).sum(-2)
        _right(d_before, half)[..., -1, :] += _left(d_after, half).sum(-2)
        d_right, d_left = exponents[level]
        _right(d_before, half).add_(d_right)
        _left(d_after, half).add_(d_left)
    return d_before


def _double(before: Tensor, after: Tensor, half: int) -> None:
    """Sums within blocks of h tokens, `[X, C, K]`, become sums within blocks of 2h, in place."""
    _left(after, half).add_(_right(before, half)[..., -1:, :])
    _right(before, half).add_(_left(before, half)[..., -1:, :])


def _right(x: Tensor, half: int) -> Tensor:
    """The right halves of blocks of 2h tokens: `[X, C, K]` to `[X, n, h, K]`, a view."""
    return _halved(x, half)[:, :, 1]


def _left(x: Tensor, half: int) -> Tensor:
    """The left halves of blocks of 2h tokens: `[X, C, K]` to `[X, n, h, K]`, a view."""
    return _halved(x, half)[:, :, 0]


def _halved(x: Tensor, half: int) -> Tensor:
    return torch.unflatten(x, 1, (-1, 2, half))


def _corner(products: Tensor, half: int) -> Tensor:
    """Rows of the right by keys of the left half of each block: `[X, C, C]` to `[X, n, h, h]`, a view."""
    blocks = torch.unflatten(_right(products, half), -1, (-1, 2, half))[..., 0, :]
    return blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)
