"""ShortConv: a causal depthwise convolution over a few tokens, with a tail that carries over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ShortConv(nn.Module):
    """``y_t = sum_i w_i x_{t-i}`` for i below ``width``, one weight a channel; starts near the identity.

    In a packed batch nothing crosses from one sequence into the next.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        weight = 0.25 * torch.randn(width, channels)
        weight[0] += 1.0
        self.weight = nn.Parameter(weight)

    @property
    def tail_rows(self) -> int:
        """Earlier inputs that the next output needs."""
        return self.weight.shape[0] - 1

    def forward(self, x: Tensor, *, tail: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """`x` `[B, T, C]` to `[B, T, C]`.

        ``tail`` `[B, width - 1, C]` holds the inputs before `x`, zeros for tokens that were not there. ``positions``
        `[B, T]`, needed for packed batches only, are the tokens' positions in their own sequences.
        """
        if tail is not None:
            joined = torch.cat([tail.to(x.dtype), x], dim=1)
            return _shifted_sum(joined, self.weight)[:, tail.shape[1] :]
        if positions is None:
            return _shifted_sum(x, self.weight)
        out = x * self.weight[0]
        for shift in range(1, min(self.weight.shape[0], x.shape[1])):
            seen = (positions[:, shift:] >= shift)[..., None]
            moved = torch.where(seen, x[:, :-shift] * self.weight[shift], 0.0)
            out = out + nn.functional.pad(moved, (0, 0, shift, 0))
        return out

    def step(self, x_t: Tensor, tail: Tensor) -> Tensor:
        """One token `[B, C]` after ``tail`` `[B, width - 1, C]`, oldest first."""
        earlier = torch.einsum("bwc,wc->bc", tail.to(x_t.dtype), self.weight[1:].flip(0))
        return x_t * self.weight[0] + earlier


def next_tail(tail: Tensor, x: Tensor) -> Tensor:
    """The tail `[B, R, C]` after `x` `[B, T, C]` was read."""
    rows = tail.shape[1]
    return torch.cat([tail, x.to(tail.dtype)], dim=1)[:, x.shape[1] : x.shape[1] + rows]


class _ShiftedSum(torch.autograd.Function):
    """The convolution as in-place shifted products: a slice's own backward would fill a tensor for each shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = x * weight[0]
        for shift in range(1, min(weight.shape[0], x.shape[1])):
            out[:, shift:].addcmul_(x[:, :-shift], weight[shift])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad_x = grad * weight[0]
        grad_weight = torch.zeros_like(weight)
        grad_weight[0] = (grad * x).sum((0, 1))
        for shift in range(1, min(weight.shape[0], x.shape[1])):
            grad_x[:, :-shift].addcmul_(grad[:, shift:], weight[shift])
            grad_weight[shift] = (grad[:, shift:] * x[:, :-shift]).sum((0, 1))
        return grad_x, grad_weight


def _shifted_sum(x: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = _ShiftedSum.apply(x, weight.to(x.dtype))  # type: ignore[no-untyped-call]
    return out
