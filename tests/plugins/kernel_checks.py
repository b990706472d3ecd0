"""How a kernel is held to the explicit form in float64: ratios of differences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
