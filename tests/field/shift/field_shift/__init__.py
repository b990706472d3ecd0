"""Softmax attention behind a token shift, whose value is mixed with that of the first such layer.

Token shift as in RWKV (arXiv 2305.13048, section 3): queries, keys and values are projected from a blend of a
token and the one before it in its sequence, zero before the first,

    q_t = W_q (x_t + m_q (x_{t-1} - x_t)), k_t and v_t likewise, m_q, m_k, m_v `[D]` trained.

The value residual (arXiv 2410.17897, section 3, with trained weights): in the first such layer of a model v_t stays,
in later ones v_t <- a v_t + b v1_t, v1_t the first layer's value of the same token, a and b trained. Then causal
softmax attention. The state holds the last token beside the keys and (blended) values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, hookimpl
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
    from .layer import ShiftedAttention


class ShiftOptions(MixerOptions):
    """None."""


class ShiftPlugin(MixerPlugin[ShiftOptions]):
    """Softmax attention with token shift and value residual."""

    name = "field-shift"
    api_version = 2
    family = "full"
    summary = "softmax attention with a token shift, and the first layer's value in later ones"
    options = ShiftOptions
    reads_pattern = True

    def check(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if layer.pattern is not None and layer.pattern[layer.index].mixer != self.name:
            return "it shares its value by its layer, so it stands by itself: take it out of the other mixer"
        return None

    def params(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape) + 3 * shape.d_model + 2 * (first_of(layer) < layer.index)

    def flops(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        blended = 3.0 * shape.n_kv_heads * shape.head_dim * (first_of(layer) < layer.index)
        token = projection_flops(shape, rope=1.0) + Flops(elementwise=7.0 * shape.d_model + blended)
        if phase == "decode":
            return token + softmax_flops(context, shape)
        return token * context + softmax_flops(visible_pairs(context), shape)

    def traffic(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        last = shape.d_model * shape.dtype_bytes
        return kv_traffic(context, shape) + Traffic(read_bytes=last, written_bytes=last)

    def state(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        last = StateTensor(name="last", row_shape=(shape.d_model,), dtype=shape.dtype, role="conv", base=1)
        return (*kv_cache(shape), last)

    def build(self, options: ShiftOptions, shape: ModelShape, layer: LayerInfo) -> ShiftedAttention:
        from .layer import ShiftedAttention

        return ShiftedAttention(self, options, shape, layer)


def first_of(layer: LayerInfo) -> int:
    """Index of the first such layer of the model, this one perhaps. Raises `PluginError` where no pattern is told."""
    names = [earlier.mixer for earlier in layer.earlier]
    return names.index(ShiftPlugin.name) if ShiftPlugin.name in names else layer.index


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-shift"."""
    register(ShiftPlugin())
