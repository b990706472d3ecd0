"""The layer of mixture of block attention, and its cache: keys and values, and the mean key of each complete block."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.block_cache import BlockCache, write_new_means
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

from .ops import moba_attention, moba_attention_step
from .options import MobaOptions
from .triton.table import TABLE


class MobaAttention(AttentionMixer):
    """Each query head attends to its own block and to its best ``top_k - 1`` past blocks.

    The row of a block in ``mean`` is written by the token that completes it, and not read before. A decode step reads
    the rows of the chosen blocks, and the means of the past blocks when there are more than it takes.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: MobaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.block_size, self.top_k = options.block_size, options.top_k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return moba_attention(LaidOut(q, k, v, cu_seqlens=cu_seqlens), block_size=self.block_size, top_k=self.top_k)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        rows, count = token_indices(state, k.shape[1]), k.shape[1]
        tensors = {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}
        if self.top_k > 1:
            means = state.tensors["mean"]
            tensors["mean"] = write_new_means(
                means, tensors["k"], state.lengths, count, block_size=self.block_size, table=TABLE
            )
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, after = self.remember(k, v, state), state.lengths + q.shape[1]
        if q.shape[1] == 1:
            means = tensors["mean" if self.top_k > 1 else "k"]
            cache = BlockCache(k=tensors["k"], v=tensors["v"], means=means, lengths=after)
            o = moba_attention_step(q[:, 0], cache, block_size=self.block_size, top_k=self.top_k)
            return o[:, None], tensors
        keys, values = self.filled(tensors, state, q)
        out = moba_attention(LaidOut(q, keys, values, lengths=after), block_size=self.block_size, top_k=self.top_k)
        return out, tensors
