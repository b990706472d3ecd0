"""A mixer that misbehaves in the way that its option says, for searches that must survive it."""

from __future__ import annotations

import ctypes
import os
import time
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
"""What a search draws by itself; the others must be asked for."""


def eat() -> None:
    """Takes 12 GB of memory, a little at a time, so that who watches it comes in time."""
    held = []
    for _ in range(120):
        held.append(bytearray(os.urandom(2**12)) * (100 * 2**8))
        time.sleep(0.1)
    time.sleep(3600)


class HostileOptions(MixerOptions):
    way: Annotated[
        Literal["raises", "exits", "wrong shape", "builds nothing", "segfaults", "sleeps", "eats"], Tunable(*WAYS)
    ] = "raises"


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
                if options.way == "segfaults":
                    ctypes.string_at(0)
                if options.way == "sleeps":
                    time.sleep(3600)
                if options.way == "eats":
                    eat()
                if options.way == "raises":
                    raise RuntimeError("a kernel failed")
                return x.mean(1, keepdim=True), state

        return None if options.way == "builds nothing" else Layer(self, options, shape, layer)  # type: ignore[return-value]
