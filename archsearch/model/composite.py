"""CompositeMixer: the layer of a mixer made of mixers, each with its share of the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.errors import PluginError
from archsearch.figures import part_shape_of
from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model.context import Context
from archsearch.model.foreign import told
from archsearch.model.mixer import Mixer, MixerState


class CompositeMixer(Mixer):
    """Base of layers made of layers: ``parts`` are built from `MixerPlugin.parts`, in that order.

    A subclass writes `forward` and `step` by `run` and `run_step`, which go through one part and give its new tensors
    by the names that `archsearch.composite.CompositePlugin.state` has, and ends with ``state.after(tensors, count)``
    of them all. Sub-layers are told the place of the whole layer, and which part of it they are.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.parts = nn.ModuleList(self._built(index) for index in range(len(plugin.parts(options))))

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """The parts' own initial states, and empty tensors for the mixer's own."""
        whole = super().init_state(batch, capacity, dtype=dtype, device=device)
        for index, part in enumerate(self.parts):
            assert isinstance(part, Mixer)
            state = part.init_state(batch, capacity, dtype=dtype, device=device)
            whole.tensors |= self._named(index, state)
        return whole

    def run(self, index: int, x: Tensor, *, state: MixerState | None, ctx: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Part `index` over `x` `[B, T, D]`: its output `[B, T, D]`, and its new tensors, none without a state."""
        own = None if state is None else self._share(index, state)
        y, after = self.parts[index](x, state=own, ctx=ctx if own is not None else replace(ctx, want_state=False))
        return y, {} if after is None else self._named(index, after)

    def run_step(self, index: int, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Part `index` over one token `[B, D]`: its output `[B, D]`, and its new tensors."""
        part = self.parts[index]
        assert isinstance(part, Mixer)
        y, after = part.step(x_t, state=self._share(index, state), ctx=ctx)
        return y, self._named(index, after)

    def _share(self, index: int, state: MixerState) -> MixerState:
        prefix = f"{index}."
        tensors = {
            name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if name.startswith(prefix)
        }
        return state.after(tensors, 0)

    @staticmethod
    def _named(index: int, state: MixerState) -> dict[str, Tensor]:
        return {f"{index}.{name}": tensor for name, tensor in state.tensors.items()}

    def _built(self, index: int) -> Mixer:
        part = self.plugin.parts(self.options)[index]
        plugin = self.layer.plugin_of(part)
        place = self.layer.part_at(index).told_to(plugin, part.options)
        shape = part_shape_of(self.plugin, self.options, self.shape, index)
        built: object = plugin.build(part.options, shape, place)
        if not isinstance(built, Mixer):
            raise PluginError(f'"{part.mixer}", a part: build gave {told(built)}, wanted an archsearch.model.Mixer')
        return built
