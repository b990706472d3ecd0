"""The layer of the gated short convolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.short_conv import ShortConv, next_tail

from .options import ConvOptions


class GatedConv(Mixer):
    """``y = W_o (c * conv(b * u))`` with ``b, c, u`` projections of x; the state holds the last ``width - 1`` of
    ``b * u``."""

    def __init__(self, plugin: MixerPlugin[Any], options: ConvOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.project = nn.Linear(shape.d_model, 3 * shape.d_model, bias=False)
        self.conv = ShortConv(shape.d_model, options.width)
        self.out = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None:
            state.check_room(x.shape[1], ctx.held)
        before, after, u = self.project(x).chunk(3, -1)
        gated = before * u
        tail = None if state is None else state.tensors.get("tail")
        mixed = self.conv(gated, tail=tail, positions=ctx.order_of(x) if ctx.cu_seqlens is not None else None)
        y: Tensor = self.out(after * mixed)
        if state is None:
            return y, None
        return y, state.after({} if tail is None else {"tail": next_tail(tail, gated)}, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`."""
        before, after, u = self.project(x_t).chunk(3, -1)
        gated, tail = before * u, state.tensors.get("tail")
        if tail is None:
            return self.out(after * self.conv(gated[:, None])[:, 0]), state.after({}, 1)
        mixed, tail = self.conv.advance(gated, tail)
        return self.out(after * mixed), state.after({"tail": tail}, 1)
