"""The layer of two mixers side by side."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.composite import CompositeMixer


class ParallelMixer(CompositeMixer):
    """The mean of both parts' outputs, normed and scaled."""

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.scales = nn.Parameter(torch.ones(2, shape.d_model))

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`."""
        state = self.state_for(x, state, ctx)
        a, of_a = self.run(0, x, state=state, ctx=ctx)
        b, of_b = self.run(1, x, state=state, ctx=ctx)
        return self._joined(a, b), None if state is None else state.after({**of_a, **of_b}, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`."""
        a, of_a = self.run_step(0, x_t, state=state, ctx=ctx)
        b, of_b = self.run_step(1, x_t, state=state, ctx=ctx)
        return self._joined(a, b), state.after({**of_a, **of_b}, 1)

    def _joined(self, a: Tensor, b: Tensor) -> Tensor:
        first, second = (
            F.rms_norm(part, part.shape[-1:], scale.to(part.dtype), 1e-6)
            for part, scale in zip((a, b), self.scales, strict=True)
        )
        return (first + second) / 2
