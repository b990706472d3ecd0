"""The layer of full attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.masks import earlier_in_sequence
from archsearch.ops.weights import mean_weights

from .delta import DeltaAttention
from .ops import full_attention, full_attention_step
from .options import FullOptions
from .path_layer import PathAttention
from .rows import WeightedAttention


def layer_of(options: FullOptions) -> type[AttentionMixer]:
    """The layer of a weighting."""
    if options.weighting == "softmax":
        return FullAttention
    if options.weighting == "delta":
        return DeltaAttention
    return PathAttention if options.reflects else WeightedAttention


class FullAttention(AttentionMixer):
    """Every token sees all before it; the state holds a key and a value row for each."""

    def __init__(self, plugin: MixerPlugin[Any], options: FullOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(
            plugin,
            options,
            shape,
            layer,
            rope=options.rope,
            rope_base=options.rope_base,
            qk_norm=options.qk_norm,
            n_kv_heads=options.n_kv_heads,
        )
        if options.output_gate:
            self.add_gate()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return full_attention(LaidOut(q, k, v, cu_seqlens=cu_seqlens))

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        rows = token_indices(state, k.shape[1])
        return {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, after = self.remember(k, v, state), state.lengths + q.shape[1]
        if q.shape[1] == 1:
            return full_attention_step(q[:, 0], tensors["k"], tensors["v"], after)[:, None], tensors
        return full_attention(LaidOut(q, *self.filled(tensors, state, q), lengths=after)), tensors

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """What each token attends to, `[B, T, T]`, for a model that learns it: see `archsearch.model.recorded`."""
        q, k, _ = self.project(x, ctx.positions_of(x))
        return mean_weights(q, k, earlier_in_sequence(ctx.order_of(x)))
