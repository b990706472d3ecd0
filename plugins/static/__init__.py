"""Attention under a static pattern of blocks: a window, dilated perhaps, first tokens, and blocks drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import dense_up_to, static_flops, static_params, static_state, static_traffic
from .options import StaticOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import StaticAttention


class StaticPlugin(MixerPlugin[StaticOptions]):
    """Longformer and BigBird in their causal forms: a function from a block of queries to blocks of keys."""

    name = "static"
    api_version = 2
    family = "sparse"
    summary = "softmax attention under a fixed pattern of blocks: window, first and random ones (Longformer, BigBird)"
    options = StaticOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "longformer": {"block_size": 8, "local": 3, "first": 1},
        "bigbird": {"block_size": 8, "local": 1, "first": 2, "random": 3},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "dilated": {"block_size": 4, "local": 3, "dilation": 2, "first": 2},
            "dilated-drawn": {"block_size": 4, "local": 2, "dilation": 2, "first": 0, "random": 2, "rope": 0.0},
            "own-block": {"block_size": 4, "local": 0, "first": 0},
            "first-apart": {"block_size": 4, "local": 2, "first": 2, "first_projections": True},
            "first-apart-drawn": {"block_size": 4, "local": 1, "first": 1, "random": 2, "first_projections": True},
            "tokens": {"block_size": 1, "local": 7, "first": 3},
        },
    }

    def check(self, options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope)

    def params(self, options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return static_params(options, shape)

    def flops(
        self, options: StaticOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return static_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: StaticOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return static_traffic(options, shape, context=context)

    def state(self, options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return static_state(options, shape)

    def values(self, options: StaticOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_kv_heads * (2 if options.first_projections else 1), shape.head_dim

    def build(self, options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> StaticAttention:
        from .layer import StaticAttention

        return StaticAttention(self, options, shape, layer)

    def dense_up_to(self, options: StaticOptions, layer: LayerInfo) -> int:
        return dense_up_to(options)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "static"."""
    register(StaticPlugin())
