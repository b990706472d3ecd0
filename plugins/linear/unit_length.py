"""Vectors scaled to length 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from archsearch.ops.bounds import UNIT_EPS
from archsearch.ops.fused import fused
from archsearch.ops.triton.table import UNIT


def unit_length(x: Tensor) -> Tensor:
    """`x` `[..., H, K]` over sqrt(sum of squares + 1e-6), as in the code of the delta rules' papers: zeros stay zero,
    with a finite gradient."""
    if fused(UNIT, x, x.shape[-1]):
        from archsearch.ops.triton.launch.norms import unit_length as kernel

        by_kernel: Tensor = kernel(x)[0]
        return by_kernel
    unit: Tensor = _UnitLength.apply(x)  # type: ignore[no-untyped-call]
    return unit


class _UnitLength(torch.autograd.Function):
    """With half the passes over memory in its backward; lengths in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        inverse = length.square_().add_(UNIT_EPS).rsqrt_()
        unit: Tensor = (x * inverse).to(x.dtype)
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = (grad * unit).sum(-1, keepdim=True)
        d_x: Tensor = unit.mul(along).neg_().add_(grad)
        return d_x.mul_(inverse)
