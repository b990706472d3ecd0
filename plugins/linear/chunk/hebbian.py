"""The Hebbian rule from chunk to chunk: what every chunk writes, the states between them, and what is read of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def hebbian(
    weights: Tensor,
    v: Tensor,
    rows: Tensor,
    keys: Tensor,
    left: Tensor | None,
    state: Tensor | None,
    *,
    want_last: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs weights v + rows S `[N, B, H, C, V]`, with S the state that a chunk starts with, and the last state,
    empty unless it is wanted.

    weights `[N, B, H, C, C]`, `v` `[N, B, H, C, V]`; ``rows`` and ``keys`` `[N, B, H, C, K]` as they meet the states at
    the start and at the end of their chunk; ``left`` `[N, B or 1, H, 1 or K, 1]` is what a chunk leaves of a state,
    None for all of it; ``state`` `[B, H, K, V]` the first one, None for zeros.
    """
    if not torch.is_grad_enabled():
        o, _, last = _forward(weights, v, rows, keys, left, state, want_last)
        return o, last
    o, last = _Hebbian.apply(weights, v, rows, keys, left, state, want_last)  # type: ignore[no-untyped-call]
    return o, last


def _forward(
    weights: Tensor,
    v: Tensor,
    rows: Tensor,
    keys: Tensor,
    left: Tensor | None,
    state: Tensor | None,
    want_last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the states at the ends of chunks, of the last one only where it is wanted, and that one."""
    count = len(v) if want_last else len(v) - 1
    o, ends = weights @ v, keys[:count].mT @ v[:count]
    _pass_on(ends, left, state)
    _add_product(o[1:], rows[1:], ends[: len(v) - 1])
    if state is not None:
        _add_product(o[:1], rows[:1], state[None])
    return o, ends, ends[-1].clone() if want_last else v.new_zeros(0)


class _Hebbian(torch.autograd.Function):
    """In place where a step adds to what was computed, forward and backward: half the passes over memory."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        v: Tensor,
        rows: Tensor,
        keys: Tensor,
        left: Tensor | None,
        state: Tensor | None,
        want_last: bool,
    ) -> tuple[Tensor, Tensor]:
        o, ends, last = _forward(weights, v, rows, keys, left, state, want_last)
        ctx.save_for_backward(weights, v, rows, keys, left, state, ends)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        weights, v, rows, keys, left, state, ends = ctx.saved_tensors
        d_o, count = d_o.contiguous(), len(ends)
        d_ends = torch.empty_like(ends)
        torch.matmul(rows[1:].mT, d_o[1:], out=d_ends[: len(v) - 1])
        if count == len(v):
            d_ends[-1] = d_last
        for n in reversed(range(count - 1)):
            _add_left(d_ends[n], None if left is None else left[n + 1], d_ends[n + 1])
        d_rows = torch.empty_like(rows)
        torch.matmul(d_o[1:], ends[: len(v) - 1].mT, out=d_rows[1:])
        d_state = None
        if state is None:
            d_rows[0] = 0
        else:
            torch.matmul(d_o[0], state.mT, out=d_rows[0])
            d_state = rows[0].mT @ d_o[0]
            if count:
                _add_left(d_state, None if left is None else left[0], d_ends[0])
        d_v, d_keys = weights.mT @ d_o, torch.empty_like(keys)
        _add_product(d_v[:count], keys[:count], d_ends)
        torch.matmul(v[:count], d_ends.mT, out=d_keys[:count])
        d_keys[count:] = 0
        d_left = _left_gradient(d_ends, ends, left, state) if ctx.needs_input_grad[4] else None
        return d_o @ v.mT, d_v, d_rows, d_keys, d_left, d_state, None


def _pass_on(ends: Tensor, left: Tensor | None, state: Tensor | None) -> None:
    """What each chunk wrote, `[N, B, H, K, V]`, becomes the state at its end, in place."""
    before = state
    for n, end in enumerate(ends.unbind()):
        if before is not None:
            _add_left(end, None if left is None else left[n], before)
        before = end


def _add_left(total: Tensor, left: Tensor | None, state: Tensor) -> None:
    """`total` plus what is `left` of `state`, in place."""
    if left is None:
        total.add_(state)
    else:
        total.addcmul_(left, state)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total` `[N, B, H, ...]` plus the product of two batches of matrices, in place."""
    if len(total):
        total.flatten(0, 2).baddbmm_(a.flatten(0, 2), b.flatten(0, 2))


def _left_gradient(d_ends: Tensor, ends: Tensor, left: Tensor, state: Tensor | None) -> Tensor:
    d_left = torch.zeros_like(left)
    if len(ends):
        first = torch.zeros_like(ends[:1]) if state is None else state[None]
        products = d_ends * torch.cat((first, ends[:-1]))
        d_left[: len(ends)] = products.sum_to_size(len(ends), *left.shape[1:])
    return d_left
