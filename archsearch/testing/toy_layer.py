"""The layer of the toy mixer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState

if TYPE_CHECKING:
    from archsearch.testing.toy import ToyOptions


class RunningMean(Mixer):
    """Mean of all tokens so far; the state is their sum, and the lengths that every state has."""

    def __init__(self, plugin: MixerPlugin[Any], options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.down = nn.Linear(shape.d_model, options.channels, bias=False)
        self.up = nn.Linear(options.channels, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state = self.state_for(x, state, ctx)
        values = self.down(x).float()  # [B, T, C]
        totals = values.cumsum(1)
        counts = ctx.order_of(x, None if state is None else state.lengths)[..., None] + 1
        if ctx.cu_seqlens is not None:
            totals = totals - _before_own_sequence(totals, counts)
        if state is not None:
            totals = totals + state.tensors["total"]
            after = totals[:, -1:] if x.shape[1] else state.tensors["total"]
            state = state.after({"total": after}, x.shape[1])
        y: Tensor = self.up((totals / counts).to(x.dtype))
        return y, state


def _before_own_sequence(totals: Tensor, counts: Tensor) -> Tensor:
    """Sum of the packed sequences before each token's own: zero in the first."""
    tokens = counts.new_ones(counts.shape).cumsum(1)
    earlier = (tokens - counts).expand_as(totals)
    return nn.functional.pad(totals, (0, 0, 1, 0)).gather(1, earlier)
