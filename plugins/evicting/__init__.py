"""Attention whose cache evicts: the last tokens stay, and those that were attended to most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, kv_heads_of, projection_params
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import evicting_flops, evicting_state, evicting_traffic
from .options import EvictingOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import EvictingAttention


class EvictingPlugin(MixerPlugin[EvictingOptions]):
    """H2O (arXiv 2306.14048, algorithm 1): full attention over a sequence, a cache of bounded size in decoding."""

    name = "evicting"
    api_version = 2
    family = "sparse"
    summary = "softmax attention whose cache keeps the last tokens and those that were attended to most (H2O)"
    options = EvictingOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"h2o": {"heavy": 32, "recent": 32}}
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "one-key-head": {"heavy": 4, "recent": 8, "n_kv_heads": 1},
            "4-and-8": {"heavy": 4, "recent": 8},
            "1-and-1": {"heavy": 1, "recent": 1, "rope": 0.0},
        },
        "tokens": 80,
        "drops_beyond": False,  # the forward pass drops nothing
    }
    broken_laws: ClassVar = {
        "step": "decoding evicts tokens that the forward pass still attends to",
        "split": "a prompt is cut to what is kept before the next token is read",
    }

    def check(self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope, n_kv_heads=options.n_kv_heads)

    def params(self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape, n_kv_heads=options.n_kv_heads)

    def flops(
        self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return evicting_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return evicting_traffic(options, shape, context=context)

    def state(self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return evicting_state(options, shape)

    def values(self, options: EvictingOptions, shape: ModelShape) -> tuple[int, int]:
        return kv_heads_of(options.n_kv_heads, shape), shape.head_dim

    def build(self, options: EvictingOptions, shape: ModelShape, layer: LayerInfo) -> EvictingAttention:
        from .layer import EvictingAttention

        return EvictingAttention(self, options, shape, layer)

    def dense_up_to(self, options: EvictingOptions, layer: LayerInfo) -> int:
        return options.kept + 1  # the last of them attends to all that is kept, and to itself


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "evicting"."""
    register(EvictingPlugin())
