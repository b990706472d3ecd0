"""The values of the first layer, handed on and mixed into those of later ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo
from archsearch.model import Context

from .decays import Dims

_BIAS = (0.93, 0.53)
"""Of the gate at the start, from the first channel to the last, as in RWKV-7's code."""


class FirstValues(nn.Module):
    """v + (v_1 - v) sigmoid(x W_1 W_2 + b), v_1 the values of the first layer that has such (RWKV-7, arXiv 2503.14456,
    section 4), whose own stay as they are. Layer 0 is the first, and has no gate; a later one that is the first, or
    follows one of other heads, mixes in its own."""

    NAME = "first values"

    def __init__(self, d_model: int, rank: int, dims: Dims, layer: LayerInfo) -> None:
        super().__init__()
        self.layer, values = layer, dims.heads * dims.value_dim
        self.down = nn.Linear(d_model, rank, bias=False) if rank else None
        self.up = nn.Linear(rank, values) if rank else None
        if self.up is not None:
            with torch.no_grad():
                self.up.bias.copy_(torch.linspace(*_BIAS, values))

    def forward(self, v: Tensor, x: Tensor, ctx: Context) -> Tensor:
        """Values `[B, T, H, V]`, with the first ones mixed in by what the projection of values reads, `[B, T, D]`."""
        found = ctx.nearest(self.layer, self.NAME)
        first: Tensor = v if found is None or found[1].shape != v.shape else found[1].to(v.dtype)
        ctx.share(self.layer, self.NAME, first)
        if self.down is None or self.up is None:
            return v
        gate = self.up(self.down(x)).sigmoid().view_as(v)
        return torch.lerp(v, first, gate.to(v.dtype))
