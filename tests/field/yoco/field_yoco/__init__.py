"""You Only Cache Once (YOCO, arXiv 2405.05254, section 2): one layer caches keys and values for those after it.

    field-yoco-kv:  k, v = W_k x, W_v x;  o_t = softmax(q_t K_t^T / sqrt(D)) V_t over its own K_t = [k_1 .. k_t], V_t
    field-yoco:     o_t = softmax(q_t K_t^T / sqrt(D)) V_t with K_t, V_t of the nearest "field-yoco-kv" before it

A reader has neither keys nor values nor a cache: its state is empty, and a decoded token reads the producer's rows. It
cannot stand where no producer is before it.
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
    from .layer import Producer, Reader

PRODUCER = "field-yoco-kv"


class YocoOptions(MixerOptions):
    """None."""


class _Attention(MixerPlugin[YocoOptions]):
    """What both count alike: the softmax over all tokens so far, and the rows that it reads."""

    api_version = 2
    family = "full"
    options = YocoOptions
    reads_pattern = True

    def token_flops(self, shape: ModelShape) -> Flops:
        """Of one token, outside the softmax."""
        raise NotImplementedError

    def flops(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        if phase == "decode":
            return self.token_flops(shape) + softmax_flops(context, shape)
        return self.token_flops(shape) * context + softmax_flops(visible_pairs(context), shape)


class ProducerPlugin(_Attention):
    """Causal softmax attention whose cache later layers read too."""

    name = PRODUCER
    summary = "softmax attention whose keys and values the layers after it read"

    def check(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if layer.pattern is not None and layer.pattern[layer.index].mixer != self.name:
            return "it shares its cache by its layer, so it stands by itself: take it out of the other mixer"
        return None

    def params(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape)

    def token_flops(self, shape: ModelShape) -> Flops:
        return projection_flops(shape, rope=1.0)

    def traffic(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(context, shape)

    def state(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return kv_cache(shape)

    def build(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> Producer:
        from .layer import Producer

        return Producer(self, options, shape, layer)


class ReaderPlugin(_Attention):
    """Causal softmax attention over the cache of the nearest producer before it."""

    name = "field-yoco"
    summary = "softmax attention over the keys and values of an earlier layer"

    def check(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if producer_of(layer) is None:
            return f'it reads the cache of a "{PRODUCER}" before it, and there is none: put one in an earlier layer'
        return None

    def params(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 2 * shape.d_model * shape.n_heads * shape.head_dim

    def token_flops(self, shape: ModelShape) -> Flops:
        width = float(shape.n_heads * shape.head_dim)
        return Flops(matmul=4.0 * shape.d_model * width, elementwise=3.0 * width)

    def traffic(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic(read_bytes=kv_traffic(context, shape).read_bytes)

    def state(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return ()

    def build(self, options: YocoOptions, shape: ModelShape, layer: LayerInfo) -> Reader:
        from .layer import Reader

        return Reader(self, options, shape, layer)


def producer_of(layer: LayerInfo) -> int | None:
    """Index of the nearest producer before a layer. Raises `PluginError` where no pattern is told."""
    found = [index for index, earlier in enumerate(layer.earlier) if earlier.mixer == PRODUCER]
    return found[-1] if found else None


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-yoco-kv" and "field-yoco"."""
    register(ProducerPlugin())
    register(ReaderPlugin())
