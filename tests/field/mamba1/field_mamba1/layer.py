"""The layer of Mamba-1's selective scan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.short_conv import ShortConv, next_tail

if TYPE_CHECKING:
    from . import Mamba1Options

_CHUNK = 64
"""Tokens that are scanned at once."""


class SelectiveScan(Mixer):
    """One token is a chunk of one, so that the step is the forward pass."""

    def __init__(self, plugin: MixerPlugin[Any], options: Mamba1Options, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        inner, rank = options.sizes(shape)
        self.sizes = [rank, options.state_dim, options.state_dim]
        self.read = nn.Linear(shape.d_model, 2 * inner, bias=False)
        self.conv = ShortConv(inner, options.conv)
        self.conv_bias = nn.Parameter(torch.zeros(inner))
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt = nn.Linear(rank, inner)
        with torch.no_grad():
            steps = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # whose softplus is `steps`
        self.log_rate = nn.Parameter(torch.arange(1.0, options.state_dim + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed sequences with a state."""
        state, packed = self.state_for(x, state, ctx), ctx.cu_seqlens is not None
        if state is not None and packed:
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        order = ctx.order_of(x) if packed else None
        u, gate = self.read(x).chunk(2, dim=-1)
        tail = None if state is None else state.tensors["conv"]
        mixed = F.silu(self.conv(u, tail=tail, positions=order) + self.conv_bias)
        held = None if state is None else state.tensors["recurrent"][:, 0]
        y, last = self._scanned(mixed, held, order)
        out: Tensor = self.out(y.to(gate.dtype) * F.silu(gate))
        if state is None or tail is None:
            return out, None
        return out, state.after({"conv": next_tail(tail, u), "recurrent": last[:, None]}, x.shape[1])

    def _scanned(self, u: Tensor, held: Tensor | None, order: Tensor | None) -> tuple[Tensor, Tensor]:
        """y `[B, T, C]` fp32 of u `[B, T, C]` after `held` `[B, C, N]`, and what is held then. Where the `order` of a
        token in its packed sequence is 0, nothing earlier is left."""
        low, write, read = torch.split(self.select(u), self.sizes, dim=-1)
        wide, rate = u.float(), -self.log_rate.float().exp()
        h = wide.new_zeros(len(u), *rate.shape) if held is None else held
        dt, outputs = F.softplus(self.dt(low).float()), []
        keeps = torch.ones_like(dt[..., :1]) if order is None else (order > 0).float()[..., None]
        parts = (dt, keeps, dt * wide, write.float(), read.float())
        for steps, kept, new, to, by in zip(*(part.split(_CHUNK, 1) for part in parts), strict=True):
            decay = torch.exp(steps[..., None] * rate) * kept[..., None]
            each = _chunk(decay, new[..., None] * to[:, :, None], h)
            outputs.append(torch.einsum("btcn,btn->btc", each, by))
            h = each[:, -1] if each.shape[1] else h
        return torch.cat(outputs, 1) + self.skip.float() * wide, h


def _chunk(decay: Tensor, new: Tensor, held: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + new_t `[B, T, C, N]` after `held` `[B, C, N]`, in log2 T rounds: what one round sums over
    n tokens, the next sums over 2 n (Hillis and Steele 1986)."""
    new = torch.cat((new[:, :1] + decay[:, :1] * held[:, None], new[:, 1:]), 1)
    reach = 1
    while reach < new.shape[1]:
        new = torch.cat((new[:, :reach], new[:, reach:] + decay[:, reach:] * new[:, :-reach]), 1)
        decay = torch.cat((decay[:, :reach], decay[:, reach:] * decay[:, :-reach]), 1)
        reach *= 2
    return new
