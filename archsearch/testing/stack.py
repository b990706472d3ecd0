"""Stack: a layer together with those before it, for one that needs what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.model import Context, Mixer, MixerState
from archsearch.model.taken import tell_taken


class Stack(Mixer):
    """All layers read the same input in one pass, in which they may share; the output is that of the last, ``own``.

    State tensors of layer i are named ``"i.name"``.
    """

    def __init__(self, layers: Sequence[Mixer]) -> None:
        own = layers[-1]
        super().__init__(own.plugin, own.options, own.shape, own.layer)
        self.layers = nn.ModuleList(layers)
        tell_taken(layers)

    @property
    def own(self) -> Mixer:
        """The layer that is tried."""
        return self._mixers()[-1]

    def _mixers(self) -> list[Mixer]:
        return [layer for layer in self.layers if isinstance(layer, Mixer)]

    def before(self) -> Stack | None:
        """The stack of the layers before the last."""
        return Stack(self._mixers()[:-1]) if len(self.layers) > 1 else None

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """The states of all layers as one."""
        states = [layer.init_state(batch, capacity, dtype=dtype, device=device) for layer in self._mixers()]
        tensors = {
            f"{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.tensors.items()
        }
        return MixerState.empty(tensors, states[-1].lengths, capacity)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` through every layer by itself."""
        state = self.state_for(x, state, ctx)
        ctx = ctx if state is not None else replace(ctx, want_state=False)
        return self._through(state, x.shape[1], lambda layer, share: layer(x, state=share, ctx=ctx))

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """`x_t` `[B, D]` through the step of every layer by itself."""
        y, after = self._through(state, 1, lambda layer, share: layer.step(x_t, state=share, ctx=ctx))
        assert after is not None
        return y, after

    def _through(
        self, state: MixerState | None, count: int, run: Callable[[Any, MixerState | None], tuple[Tensor, Any]]
    ) -> tuple[Tensor, MixerState | None]:
        tensors: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            y, after = run(layer, None if state is None else _share(state, f"{index}."))
            if state is not None:
                tensors |= {f"{index}.{name}": tensor for name, tensor in after.tensors.items()}
        return y, None if state is None else state.after(tensors, count)


def own_prefix(mixer: Mixer) -> str:
    """How the names of the tried layer's own state tensors begin."""
    return f"{len(mixer.layers) - 1}." if isinstance(mixer, Stack) else ""


def _share(state: MixerState, prefix: str) -> MixerState:
    tensors = {name.removeprefix(prefix): one for name, one in state.tensors.items() if name.startswith(prefix)}
    return state.after(tensors, 0)
