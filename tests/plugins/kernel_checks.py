"""How a kernel is held to the explicit form in float64: ratios of differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SequenceCase:
    """Sizes of softmax attention. `keys` is 0 for as many keys as `tokens`; `packed` holds the lengths of sequences
    laid end to end, `filled` those of the sequences of a cache, NaN in the rows after them."""

    tokens: int
    dim: int = 16
    heads: int = 2
    key_heads: int = 1
    batch: int = 1
    keys: int = 0
    packed: tuple[int, ...] = ()
    filled: tuple[int, ...] = ()
    value_dim: int = 0
    scale: float | None = None

    @property
    def bounds(self) -> Tensor | None:
        return torch.tensor([0, *self.packed]).cumsum(0) if self.packed else None

    @property
    def lengths(self) -> Tensor | None:
        return torch.tensor(self.filled) if self.filled else None

    def qkv(self, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Signed numbers in float64."""
        keys = self.keys or self.tokens
        q, k, v = (
            torch.randn(self.batch, *size, generator=draw, dtype=torch.float64)
            for size in (
                (self.tokens, self.heads, self.dim),
                (keys, self.key_heads, self.dim),
                (keys, self.key_heads, self.value_dim or self.dim),
            )
        )
        return q, k, v

    def leaves(self, q: Tensor, k: Tensor, v: Tensor, *more: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """The tensors in a dtype, NaN in rows of k and v that are not filled."""
        if self.filled:
            k, v = (after_filled(x, self.filled, torch.nan) for x in (k, v))
        return [x.to(dtype).requires_grad_() for x in (q, k, v, *more)]


def by_blocks(k: Tensor, block_size: int, draw: torch.Generator) -> Tensor:
    """Keys `[B, S, H, D]` of which each block lies about a point of its own, so that rounding moves no choice."""
    centres = torch.randn(1, -(-k.shape[1] // block_size), 1, k.shape[3], generator=draw, dtype=torch.float64)
    return 0.3 * k + centres.repeat_interleave(block_size, 1)[:, : k.shape[1]]


def ratio(actual: Tensor, expected: Tensor, *, least: float = 0.1) -> float:
    """RMS(difference) / RMS(expected), infinite where something is not finite; of no less than `least`, for what
    vanishes."""
    if not actual.isfinite().all():
        return float("inf")
    difference = (actual.detach().double() - expected.detach()).square().mean().sqrt()
    return float(difference / expected.detach().square().mean().sqrt().clamp(min=least))


def after_filled(x: Tensor, filled: tuple[int, ...], value: float) -> Tensor:
    """`x` `[B, S, ...]` with `value` in the rows after the first `filled` of each sequence."""
    rows = torch.arange(x.shape[1]) >= torch.tensor(filled)[:, None]
    return x.masked_fill(rows.view(*rows.shape, *[1] * (x.dim() - 2)), value)


def differences(case: Any, dtype: torch.dtype, names: tuple[str, ...]) -> dict[str, float]:
    """`ratio`, of no less than a tenth, of the output and of the gradient of each input, by name; `case` has
    ``inputs(dtype)`` and ``run(tensors, impl)``."""
    tensors = case.inputs(dtype)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    out, expected = case.run(tensors, "triton"), case.run(exact, "reference")
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got = torch.autograd.grad((out * weights.to(dtype)).sum(), tensors)
    right = torch.autograd.grad((expected * weights).sum(), exact)
    assert out.dtype == dtype
    pairs = zip(("o", *names), (out, *got), (expected, *right), strict=True)
    return {name: ratio(*both) for name, *both in pairs}
