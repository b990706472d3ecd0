"""The gated RMSNorm on a mixer's output: each head normed, times an activated gate."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.model.fused import fused
from archsearch.model.table import GATED

GateActivation = Literal["none", "silu", "sigmoid"]


def gated_norm(
    x: Tensor, weight: Tensor, gate: Tensor | None, *, activation: GateActivation = "silu", eps: float = 1e-6
) -> Tensor:
    """`x` `[..., H, V]` over the root mean square of each head, times weight `[V]` and activation(gate): `[..., H V]`.

    ``gate`` `[..., H V]`, None for none (arXiv 2307.08621, section 2.2 with GroupNorm; with RMSNorm arXiv 2312.06635,
    section 4.4). The PyTorch form gives the dtype that x, weight and gate promote to, the kernel that of x.
    """
    activation = "none" if gate is None else activation
    if fused(GATED, x, x.shape[-1]):
        from archsearch.model.launch_norms import gated_norm as kernel

        out: Tensor = kernel(x, weight, gate, activation, eps)
        return out
    out = F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).flatten(-2)
    if gate is None or activation == "none":
        return out
    return out * (F.silu(gate) if activation == "silu" else torch.sigmoid(gate))
