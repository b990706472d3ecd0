"""Softmax attention with P learned keys and values in front of every sequence (prefix tuning, arXiv 2101.00190,
section 4).

    o_t = softmax(q_t [K_p; k_1 .. k_t]^T / sqrt(D)) [V_p; v_1 .. v_t]

K_p, V_p `[P, Hkv, D]` are parameters, and the same for every sequence; q and k are turned by their positions, K_p is
not. A state begins with the rows of the prefix, so that they are cached as tokens are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, Tunable, hookimpl
from archsearch.attention_cost import (
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Flops, LayerInfo, Phase, Traffic

if TYPE_CHECKING:
    from .layer import PrefixAttention


class PrefixOptions(MixerOptions):
    """``prefix``: learned rows of keys and values."""

    prefix: Annotated[int, Field(ge=1, le=4096), Tunable(4, 16)] = 4


class PrefixPlugin(MixerPlugin[PrefixOptions]):
    """Softmax attention that sees a learned prefix."""

    name = "field-prefix"
    api_version = 2
    family = "full"
    summary = "softmax attention with learned keys and values in front of every sequence"
    options = PrefixOptions

    def params(self, options: PrefixOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape) + 2 * options.prefix * shape.n_kv_heads * shape.head_dim

    def flops(
        self, options: PrefixOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        token = projection_flops(shape, rope=1.0)
        if phase == "decode":
            return token + softmax_flops(options.prefix + context, shape)
        return token * context + softmax_flops(options.prefix * context + visible_pairs(context), shape)

    def traffic(self, options: PrefixOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(options.prefix + context, shape)

    def state(self, options: PrefixOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return tuple(replace(tensor, base=options.prefix) for tensor in kv_cache(shape))

    def build(self, options: PrefixOptions, shape: ModelShape, layer: LayerInfo) -> PrefixAttention:
        from .layer import PrefixAttention

        return PrefixAttention(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-prefix"."""
    register(PrefixPlugin())
