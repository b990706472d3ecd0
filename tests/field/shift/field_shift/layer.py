"""The layer of attention with token shift and value residual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.rotary import Rotary
from archsearch.ops.softmax import masked_attention

from . import first_of


class ShiftedAttention(Mixer):
    """Shares its value `[B, T, Hkv, D]` as "value" where it is the first such layer."""

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.first = first_of(layer)
        keys = shape.n_kv_heads * shape.head_dim
        self.q = nn.Linear(shape.d_model, shape.n_heads * shape.head_dim, bias=False)
        self.k, self.v = (nn.Linear(shape.d_model, keys, bias=False) for _ in range(2))
        self.out = nn.Linear(shape.n_heads * shape.head_dim, shape.d_model, bias=False)
        self.blend = nn.Parameter(torch.rand(3, shape.d_model))
        self.residual = nn.Parameter(torch.full((2,), 0.5)) if self.first < layer.index else None
        self.rotary = Rotary(shape.head_dim)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        q, k, v = self._project(x, state, ctx)
        if state is None:
            o = LaidOut(q, k, v, cu_seqlens=ctx.cu_seqlens).each_apart("field-shift", masked_attention)
            return self.out(o.flatten(2)), None
        if ctx.cu_seqlens is not None:
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        filled = state.check_room(x.shape[1], ctx.held) + x.shape[1]
        rows = ctx.order_of(x, state.lengths)
        tensors = {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}
        keys, values = (tensors[name][:, :filled].to(q.dtype) for name in ("k", "v"))
        o = masked_attention(q, keys, values, torch.arange(filled, device=x.device) <= rows[..., None])
        tensors["last"] = x[:, -1:].to(state.tensors["last"].dtype) if x.shape[1] else state.tensors["last"]
        return self.out(o.flatten(2)), state.after(tensors, x.shape[1])

    def _project(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, T, Hq, D]`, k and v `[B, T, Hkv, D]`."""
        last = x.new_zeros(len(x), 1, x.shape[2]) if state is None else state.tensors["last"].to(x.dtype)
        before = torch.cat((last, x), 1)[:, :-1]
        lengths = None if state is None else state.lengths
        before = torch.where((ctx.order_of(x, lengths) > 0)[..., None], before, 0)
        heads = (x + m.to(x.dtype) * (before - x) for m in self.blend)
        q, k, v = (
            project(part).unflatten(-1, (-1, self.shape.head_dim))
            for project, part in zip((self.q, self.k, self.v), heads, strict=True)
        )
        positions = ctx.positions_of(x, lengths)
        return self.rotary(positions, q), self.rotary(positions, k), self._shared_value(v, ctx)

    def _shared_value(self, v: Tensor, ctx: Context) -> Tensor:
        if self.residual is None:
            ctx.share(self.layer, "value", v)
            return v
        own, first = self.residual.to(v.dtype)
        mixed: Tensor = own * v + first * ctx.shared_by(self.first, "value").to(v.dtype)
        return mixed
