"""No token mixing: the layer that a search may leave out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archsearch import MixerOptions, hookimpl
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import NoMixing


class NoneOptions(MixerOptions):
    """The mixer `none` has no options."""


class NonePlugin(MixerPlugin[NoneOptions]):
    """A layer whose tokens stay apart: its channel mixer, where the backbone has one, is all that is left of it."""

    name = "none"
    api_version = 2
    family = "other"
    summary = "no token mixing: the layer's channel mixer alone"
    options = NoneOptions
    systems = SYSTEMS
    short_conv = False

    def params(self, options: NoneOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 0

    def flops(self, options: NoneOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return Flops()

    def traffic(self, options: NoneOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic()

    def state(self, options: NoneOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return ()

    def build(self, options: NoneOptions, shape: ModelShape, layer: LayerInfo) -> NoMixing:
        from .layer import NoMixing

        return NoMixing(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "none"."""
    register(NonePlugin())
