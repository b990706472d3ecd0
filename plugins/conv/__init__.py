"""A gated short convolution: the few tokens before each one, and nothing further away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import conv_flops, conv_params, conv_state, conv_traffic
from .options import ConvOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import GatedConv


class ConvPlugin(MixerPlugin[ConvOptions]):
    """A depthwise causal convolution between two gates that depend on the token."""

    name = "conv"
    api_version = 2
    family = "other"
    summary = "a short convolution between two gates"
    options = ConvOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lfm": {"width": 3}}
    conformance: ClassVar[Mapping[str, Any]] = {"cases": {"one-token": {"width": 1}, "wide": {"width": 8}}}
    short_conv = False

    def params(self, options: ConvOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return conv_params(options, shape)

    def flops(self, options: ConvOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return conv_flops(options, shape) * (1.0 if phase == "decode" else float(context))

    def traffic(self, options: ConvOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return conv_traffic(options, shape)

    def state(self, options: ConvOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return conv_state(options, shape)

    def build(self, options: ConvOptions, shape: ModelShape, layer: LayerInfo) -> GatedConv:
        from .layer import GatedConv

        return GatedConv(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "conv"."""
    register(ConvPlugin())
