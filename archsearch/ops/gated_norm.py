"""The gated RMSNorm on a mixer's output: each head normed, times an activated gate."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from archsearch.ops.fused import fused, trained
from archsearch.ops.triton.table import GATED

GateActivation = Literal["none", "silu", "sigmoid"]


def gated_norm(
    x: Tensor, weight: Tensor, gate: Tensor | None, *, activation: GateActivation = "silu", eps: float = 1e-6
) -> Tensor:
    """`x` `[..., H, V]` over the root mean square of each head, times weight `[V]` and activation(gate): `[..., H V]`.

    ``gate`` `[..., H V]`, None for none (arXiv 2307.08621, section 2.2 with GroupNorm; with RMSNorm arXiv 2312.06635,
    section 4.4). The PyTorch form gives the dtype that x, weight and gate promote to, the kernel that of x.
    """
    activation = "none" if gate is None else activation
    if fused(GATED, x, x.shape[-1], beside=gate):
        from archsearch.ops.triton.launch.norms import gated_norm as kernel

        out: Tensor = kernel(x, weight, gate, activation, eps)
        return out
    alike = gate is not None and activation != "none" and x.dtype == weight.dtype == gate.dtype
    if gate is not None and alike and trained(x, weight, gate):
        gated: Tensor = _GatedNorm.apply(x, weight, gate, activation, eps)  # type: ignore[no-untyped-call]
        return gated
    out = F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).flatten(-2)
    if gate is None or activation == "none":
        return out
    return out * (F.silu(gate) if activation == "silu" else torch.sigmoid(gate))


class _GatedNorm(torch.autograd.Function):
    """The same with half the passes over memory in its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gate: Tensor, activation: str, eps: float) -> Tensor:
        ctx.silu = activation == "silu"
        gate = torch.unflatten(gate, -1, x.shape[-2:])
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight, gate)
        opened = F.silu(gate) if ctx.silu else gate.sigmoid()
        return opened.mul_(weight).mul_(normed).flatten(-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, weight, gate = ctx.saved_tensors
        grad = torch.unflatten(grad, -1, normed.shape[-2:])
        opened = gate.sigmoid()
        d_opened = grad * normed
        if ctx.silu:
            d_gate = torch.ops.aten.silu_backward(d_opened * weight, gate)
            opened.mul_(gate)
        else:
            d_gate = torch.ops.aten.sigmoid_backward(d_opened * weight, opened)
        d_weight = d_opened.mul_(opened).flatten(0, -2).sum(0)
        d_normed = opened.mul_(weight).mul_(grad)
        along = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.addcmul_(normed, along, value=-1).mul_(inverse), d_weight, d_gate.flatten(-2), None, None
