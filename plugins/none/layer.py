"""The layer that mixes nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.model import Context, Mixer, MixerState


class NoMixing(Mixer):
    """Adds nothing to the residual stream; its state counts tokens, and holds nothing else."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to zeros `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a
        state."""
        state = self.state_for(x, state, ctx)
        if state is not None:
            state.check_room(x.shape[1], ctx.held)
        return torch.zeros_like(x), None if state is None else state.after({}, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to zeros `[B, D]`."""
        return torch.zeros_like(x_t), state.after({}, 1)
