"""Windowed attention with a sink logit (gpt-oss, arXiv 2508.10925, section 2; after arXiv 2309.17453, section 3).

Token t sees the last `window` tokens, itself included: o_t = sum_s exp(a_ts) v_s / (exp(b) + sum_s exp(a_ts)), with
a = q k / sqrt(D) and one trained logit b for each query head, by which a head may attend to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.attention_cost import (
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Phase

if TYPE_CHECKING:
    from .layer import SinkAttention


class SinkOptions(MixerOptions):
    """``window``: tokens seen, the own one included. ``rope``: the rotated fraction of a head."""

    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128)] = 128
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0


class SinkPlugin(MixerPlugin[SinkOptions]):
    """The cache is a ring of the last tokens' keys and values."""

    name = "field-sink"
    api_version = 2
    family = "sliding"
    summary = (
        "softmax attention over the last tokens, with one trained logit a head that takes weight from all (gpt-oss)"
    )
    options = SinkOptions
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {"window-8": {"window": 8}, "window-1": {"window": 1}, "nope-70": {"window": 70, "rope": 0.0}},
    }

    def params(self, options: SinkOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape) + shape.n_heads

    def flops(self, options: SinkOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        token = projection_flops(shape, rope=options.rope) + Flops(elementwise=2.0 * shape.n_heads, exp=shape.n_heads)
        if phase == "decode":
            return token + softmax_flops(min(context, options.window), shape)
        return token * context + softmax_flops(visible_pairs(context, options.window), shape)

    def traffic(self, options: SinkOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(min(context, options.window), shape)

    def state(self, options: SinkOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return kv_cache(shape, cap=options.window)

    def build(self, options: SinkOptions, shape: ModelShape, layer: LayerInfo) -> SinkAttention:
        from .layer import SinkAttention

        return SinkAttention(self, options, shape, layer)

    def dense_up_to(self, options: SinkOptions, layer: LayerInfo) -> int:
        return options.window


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-sink"."""
    register(SinkPlugin())
