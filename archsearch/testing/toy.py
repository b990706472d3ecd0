"""A toy mixer, as an example for plugin authors: each token sees the mean of all tokens so far.

This file is what a plugin package's ``__init__`` holds; the layer is in a file of its own, as it imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, Tunable, hookimpl
from archsearch.mixer import Flops, LayerInfo, Phase, Traffic

if TYPE_CHECKING:
    from archsearch.testing.toy_layer import RunningMean


class ToyOptions(MixerOptions):
    """``channels``: numbers a token whose mean is kept."""

    channels: Annotated[int, Field(ge=1), Tunable(16, 32)] = 16


class ToyPlugin(MixerPlugin[ToyOptions]):
    """Projects tokens to a few channels, takes their running mean, and projects back."""

    name = "toy"
    api_version = 2
    family = "other"
    summary = "the mean of all tokens so far"
    options = ToyOptions
    presets: ClassVar = {"toy-wide": {"channels": 32}}

    def params(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 2 * shape.d_model * options.channels

    def flops(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        token = Flops(matmul=4.0 * shape.d_model * options.channels, elementwise=2.0 * options.channels)
        return token if phase == "decode" else token * context

    def traffic(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        state_bytes = sum(tensor.nbytes(context) for tensor in self.state(options, shape, layer))
        return Traffic(read_bytes=state_bytes, written_bytes=state_bytes)

    def state(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="total", row_shape=(options.channels,), dtype="float32", role="recurrent", base=1),)

    def build(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> RunningMean:
        from archsearch.testing.toy_layer import RunningMean

        return RunningMean(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "toy"."""
    register(ToyPlugin())
