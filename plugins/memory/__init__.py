"""Memories that learn: the state of a head is a network, trained by gradient on the tokens as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from . import cost
from .options import PRESETS, MemoryOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import LearningMemory


class MemoryPlugin(MixerPlugin[MemoryOptions]):
    """Test-time training and Titans; its presets are the published mixers."""

    name = "memory"
    api_version = 2
    family = "memory"
    summary = "a network for each head, trained on the tokens as they are read, with or without momentum and forgetting"
    options = MemoryOptions
    presets = PRESETS
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "one-by-one": {"mini_batch": 1, "momentum": True},
            "shared-projection": {"average": True, "shared_projection": True, "conv": 3, "output_gate": "gelu"},
            "clipped": {"network": "mlp", "expand": 1, "momentum": True, "clip": 0.1},
            "batch-40": {"mini_batch": 40, "average": True},
            "bare": {"inner_norm": False, "residual": False, "bias": False, "norm": "l2", "output_norm": "none"},
        },
        "traffic_slack": 1 / 8,  # the mean is told, of which one token in a mini-batch writes more
    }

    def check(self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope)

    def params(self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return cost.params(options, shape)

    def flops(
        self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return cost.flops(options, shape, phase=phase, context=context)

    def traffic(self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return cost.traffic(options, shape, context)

    def state(self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return cost.state(options, shape)

    def values(self, options: MemoryOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_heads, shape.head_dim

    def hands_out(self, options: MemoryOptions, shape: ModelShape) -> int:
        return shape.n_heads * shape.head_dim

    def build(self, options: MemoryOptions, shape: ModelShape, layer: LayerInfo) -> LearningMemory:
        from .layer import LearningMemory

        return LearningMemory(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "memory" and its presets."""
    register(MemoryPlugin())
