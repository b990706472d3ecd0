"""ShortConv: a causal depthwise convolution over a few tokens, with a tail that carries over."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from archsearch.ops.fused import fused, trained
from archsearch.ops.triton.table import CONV

Activation = Literal["none", "silu"]

_CACHED = 1 << 17
"""Numbers of one tensor that are worked on together on a CPU."""


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

    def forward(
        self, x: Tensor, *, tail: Tensor | None = None, positions: Tensor | None = None, activation: Activation = "none"
    ) -> Tensor:
        """`x` `[B, T, C]` to `[B, T, C]`, through the activation.

        ``tail`` `[B, width - 1, C]` holds the inputs before `x`, zeros for tokens that were not there. ``positions``
        `[B, T]`, needed for packed batches only, are the tokens' positions in their own sequences.
        """
        if self._fused(x):
            return self._by_kernel(x, tail, positions, activation)
        out = self._shifted(x, tail, positions)
        return nn.functional.silu(out) if activation == "silu" else out

    def step(self, x_t: Tensor, tail: Tensor) -> Tensor:
        """One token `[B, C]` after ``tail`` `[B, width - 1, C]`, oldest first."""
        if self._fused(x_t):
            return self._by_kernel(x_t[:, None], tail, None, "none")[:, 0]
        earlier = torch.einsum("bwc,wc->bc", tail.to(x_t.dtype), self.weight[1:].flip(0))
        return x_t * self.weight[0] + earlier

    def advance(self, x_t: Tensor, tail: Tensor, *, activation: Activation = "none") -> tuple[Tensor, Tensor]:
        """One token `[B, C]` after ``tail`` `[B, width - 1, C]`: the output, and the tail after the token.

        The kernel writes that into `tail` where no gradient is needed: go on with the one that is returned.
        """
        held = tail.is_contiguous() and tail.dtype in (x_t.dtype, torch.float32)
        if held and self._fused(x_t) and not trained(x_t, self.weight, tail):
            from archsearch.ops.triton.launch.conv import conv_token

            return conv_token(x_t, self.weight, tail, activation), tail
        if self._fused(x_t) or not self.tail_rows:
            out = self(x_t[:, None], tail=tail, activation=activation)
            return out[:, 0], next_tail(tail, x_t[:, None])
        joined = torch.cat([tail.to(x_t.dtype), x_t[:, None]], dim=1)
        mixed = (joined * self.weight.flip(0).to(x_t.dtype)).sum(1)
        after = joined[:, 1:].contiguous().to(tail.dtype)
        return nn.functional.silu(mixed) if activation == "silu" else mixed, after

    def _fused(self, x: Tensor) -> bool:
        return fused(CONV, x, self.weight.shape[0])

    def _by_kernel(self, x: Tensor, tail: Tensor | None, positions: Tensor | None, activation: Activation) -> Tensor:
        from archsearch.ops.triton.launch.conv import conv

        if tail is None or not self.tail_rows:
            out: Tensor = conv(x, self.weight, None, positions, activation)
        elif trained(x, self.weight, tail):
            joined = torch.cat([tail.to(x.dtype), x], dim=1)
            out = conv(joined, self.weight, None, None, activation)[:, tail.shape[1] :]
        else:
            out = conv(x, self.weight, tail.to(x.dtype), None, activation)
        return out

    def _shifted(self, x: Tensor, tail: Tensor | None, positions: Tensor | None) -> Tensor:
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


def next_tail(tail: Tensor, x: Tensor) -> Tensor:
    """The tail `[B, R, C]` after `x` `[B, T, C]` was read, dense: it keeps no longer tensor alive."""
    tokens = x.shape[1]
    return torch.cat([tail[:, tokens:], x[:, max(0, tokens - tail.shape[1]) :].to(tail.dtype)], dim=1)


class _ShiftedSum(torch.autograd.Function):
    """The convolution as in-place shifted products: a slice's own backward would fill a tensor for each shift. A few
    sequences at a time, so that they are still in the cache for the next shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = torch.empty_like(x)
        for some, result in zip(_few(x), _few(out), strict=True):
            torch.mul(some, weight[0], out=result)
            for shift in range(1, min(weight.shape[0], x.shape[1])):
                result[:, shift:].addcmul_(some[:, :-shift], weight[shift])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        grad_x, grad_weight = torch.empty_like(grad), torch.zeros_like(weight)
        for some, above, result in zip(_few(x), _few(grad), _few(grad_x), strict=True):
            torch.mul(above, weight[0], out=result)
            grad_weight[0] += (above * some).sum((0, 1))
            for shift in range(1, min(weight.shape[0], x.shape[1])):
                result[:, :-shift].addcmul_(above[:, shift:], weight[shift])
                grad_weight[shift] += (above[:, shift:] * some[:, :-shift]).sum((0, 1))
        return grad_x, grad_weight


def _few(x: Tensor) -> tuple[Tensor, ...]:
    """`x` `[B, T, C]` by sequences, on a CPU as many at a time as have `_CACHED` numbers."""
    if x.device.type != "cpu":
        return (x,)
    some: tuple[Tensor, ...] = x.split(max(1, _CACHED // max(1, x.shape[1] * x.shape[2])))
    return some


def _shifted_sum(x: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = _ShiftedSum.apply(x, weight.to(x.dtype))  # type: ignore[no-untyped-call]
    return out
