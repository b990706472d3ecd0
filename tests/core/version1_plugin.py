"""A plugin as the documents of contract version 1 had it: an exponential moving average of a few channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, Tunable, hookimpl
from archsearch.mixer import Flops, LayerInfo, Phase, Traffic

if TYPE_CHECKING:
    from archsearch.model import Mixer


class Options(MixerOptions):
    channels: Annotated[int, Field(ge=1), Tunable(8, 16)] = 8


class Plugin(MixerPlugin[Options]):
    name = "old"
    family = "linear"
    summary = "a mean that forgets"
    options = Options
    presets: ClassVar = {"old-wide": {"channels": 32}}
    op_names = ("mean",)

    def params(self, options: Options, shape: ModelShape, layer: LayerInfo) -> int:
        return 2 * shape.d_model * options.channels

    def flops(self, options: Options, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        token = Flops(matmul=4.0 * shape.d_model * options.channels, elementwise=2.0 * options.channels)
        return token if phase == "decode" else token * context

    def traffic(self, options: Options, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic(read_bytes=4.0 * options.channels, written_bytes=4.0 * options.channels)

    def state(self, options: Options, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="mean", row_shape=(options.channels,), dtype="float32", role="recurrent", base=1),)

    def build(self, options: Options, shape: ModelShape, layer: LayerInfo) -> Mixer:
        from version1_layer import Forgetting

        return Forgetting(self, options, shape, layer)

    def dense_up_to(self, options: Options) -> int:
        return options.channels

    def kernels(self, arch: str) -> Iterable[Any]:
        return (f"kernel of {arch}",)

    def bench_ops(self) -> Iterable[Any]:
        return ("an op",)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    register(Plugin())
