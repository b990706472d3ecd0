"""The layer of the plugin of contract version 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState


class Forgetting(Mixer):
    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        channels: int = options.channels  # type: ignore[attr-defined]
        self.down = nn.Linear(shape.d_model, channels, bias=False)
        self.up = nn.Linear(channels, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state, values = self.state_for(x, state, ctx), self.down(x).float()
        index = torch.arange(x.shape[1], device=x.device)
        apart = (index[:, None] - index).clamp(min=0).float()  # [T, T]
        weights = (0.5**apart) * (index[:, None] >= index)
        mixed = weights @ values
        if state is not None:
            mixed = mixed + 0.5 ** (index[:, None] + 1).float() * state.tensors["mean"]
            state = state.after({"mean": mixed[:, -1:]}, x.shape[1])
        y: Tensor = self.up(mixed.to(x.dtype))
        return y, state
