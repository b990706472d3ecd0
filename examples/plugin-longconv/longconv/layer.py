"""The layer of longconv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.cache import write_rows
from archsearch.ops.padded import PaddedRows
from longconv import Options
from longconv.filter import ImplicitFilter, convolved, newest


class LongConv(Mixer):
    """``y = W_o (b * conv(a * v))`` with ``a, b, v`` projections of x; the state holds ``a * v`` of every token."""

    def __init__(self, plugin: MixerPlugin[Any], options: Options, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.read = nn.Linear(shape.d_model, 3 * shape.d_model, bias=False)
        self.filter = ImplicitFilter(options, shape.d_model)
        self.out = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        before, after, v = self.read(x).chunk(3, dim=-1)
        if state is None:
            return self.out(after * self.apart(before * v, ctx.cu_seqlens)), None
        mixed, tensors = self.extended(before * v, state, state.check_room(x.shape[1], ctx.held))
        return self.out(after * mixed), state.after(tensors, x.shape[1])

    def apart(self, inputs: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Whole sequences `[B, T, D]`, or packed ones `[1, T, D]`, each from its own first token on."""
        if cu_seqlens is None:
            return convolved(inputs, self.filter(inputs.shape[1]))
        rows = PaddedRows.of(cu_seqlens, inputs.shape[1])
        return rows.unpad(convolved(rows.pad(inputs), self.filter(rows.longest)))

    def extended(self, inputs: Tensor, state: MixerState, held: int) -> tuple[Tensor, dict[str, Tensor]]:
        """T more tokens `[B, T, D]` after a state of at most `held`: their outputs, and the state's tensors."""
        count = inputs.shape[1]
        places = state.lengths[:, None] + torch.arange(count, device=inputs.device)
        cache = write_rows(state.tensors["inputs"], places, inputs)
        ends, most = state.lengths + count, min(held + count, state.capacity)
        filled = torch.arange(most, device=inputs.device) < ends[:, None]
        seen = cache[:, :most].to(inputs.dtype).masked_fill(~filled[..., None], 0)
        h = self.filter(most)
        if count == 1:
            return newest(seen, h, ends), {"inputs": cache}
        places = places[..., None].expand(-1, -1, inputs.shape[2])
        return convolved(seen, h).gather(1, places), {"inputs": cache}
