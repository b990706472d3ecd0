"""CompositePlugin: a mixer made of mixers, whose costs and state are the sums of theirs and of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from archsearch.amounts import Flops, Traffic
from archsearch.errors import PluginError
from archsearch.figures import Figures, part_shape_of
from archsearch.layer import LayerInfo
from archsearch.mixer import MixerPlugin, OptionsT, Phase
from archsearch.shapes import ModelShape, StateTensor

_T = TypeVar("_T", Flops, Traffic)


class CompositePlugin(MixerPlugin[OptionsT]):
    """Base of mixers made of mixers. A subclass states the options that hold them (`Layer`), writes `build`, and
    overrides what it adds of its own: `own_params`, `own_flops`, `own_traffic`, `own_state`, nothing unless it does.

    State tensors of part i, in the order of `parts`, are named ``"i.name"``. What a layer refuses, which sequences are
    too short for it, versions and digests follow from the parts: core asks each. Needs a resolver in `LayerInfo`.
    """

    def own_params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        """Parameters beside those of the parts."""
        return 0

    def own_flops(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        """Operations beside those of the parts, as `MixerPlugin.flops` counts them."""
        return Flops()

    def own_traffic(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        """Bytes beside those of the parts, as `MixerPlugin.traffic` counts them."""
        return Traffic()

    def own_state(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        """Tensors beside those of the parts; their names have no dot."""
        return ()

    def handed_out(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> list[int | None]:
        """Of each part the channels that its last projection reads, as `MixerPlugin.hands_out` says."""
        return [part.hands_out() for part in self._figures(options, shape, layer)]

    def params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        return self.own_params(options, shape, layer) + sum(
            part.params() for part in self._figures(options, shape, layer)
        )

    def active_params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        return self.own_params(options, shape, layer) + sum(
            part.active_params() for part in self._figures(options, shape, layer)
        )

    def flops(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        own = self.own_flops(options, shape, layer, phase=phase, context=context)
        return self._sum(own, options, shape, layer, lambda part: part.flops(phase=phase, context=context))

    def traffic(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        own = self.own_traffic(options, shape, layer, context=context)
        return self._sum(own, options, shape, layer, lambda part: part.traffic(context=context))

    def state(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        own = self.own_state(options, shape, layer)
        dotted = [tensor.name for tensor in own if "." in tensor.name]
        if dotted:
            raise PluginError(f'mixer "{self.name}": own_state() names "{dotted[0]}": dots are for the parts\' tensors')
        return own + tuple(
            replace(tensor, name=f"{index}.{tensor.name}")
            for index, part in enumerate(self._figures(options, shape, layer))
            for tensor in part.state()
        )

    def _sum(
        self, own: _T, options: OptionsT, shape: ModelShape, layer: LayerInfo, amount: Callable[[Figures], _T]
    ) -> _T:
        for part in self._figures(options, shape, layer):
            own = own + amount(part)
        return own

    def _figures(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> Iterator[Figures]:
        for index, part in enumerate(self.parts(options)):
            plugin: MixerPlugin[Any] = layer.plugin_of(part)
            share = part_shape_of(self, options, shape, index)
            yield Figures(plugin, part.options, share, layer.part_at(index))
