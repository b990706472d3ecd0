"""A mixer that misbehaves in the way that its option says, for searches that must survive it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from archsearch.mixer import (
    Flops,
    LayerInfo,
    MixerOptions,
    MixerPlugin,
    ModelShape,
    Phase,
    StateTensor,
    Traffic,
    Tunable,
)

if TYPE_CHECKING:
    from archsearch.model import Mixer

WAYS = ("raises", "exits", "wrong shape", "builds nothing")


class HostileOptions(MixerOptions):
    way: Annotated[Literal["raises", "exits", "wrong shape", "builds nothing"], Tunable(*WAYS)] = "raises"


class Hostile(MixerPlugin[HostileOptions]):
    name, family, summary, options = "hostile", "other", "misbehaves", HostileOptions

    def params(self, options: HostileOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 0

    def flops(
        self, options: HostileOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return Flops(elementwise=1.0)

    def traffic(self, options: HostileOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic()

    def state(self, options: HostileOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return ()

    def build(self, options: HostileOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        from archsearch.model import Mixer

        class Layer(Mixer):
            def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
                if options.way == "exits":
                    os._exit(1)
                if options.way == "raises":
                    raise RuntimeError("a kernel failed")
                return x.mean(1, keepdim=True), state

        return None if options.way == "builds nothing" else Layer(self, options, shape, layer)  # type: ignore[return-value]
