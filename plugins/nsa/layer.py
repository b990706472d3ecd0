"""The layer of native sparse attention, and its cache: keys and values, and their means of each complete block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.block_cache import write_new_means
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

from .ops import nsa_attention
from .options import NsaOptions
from .step import NsaCache, nsa_attention_step
from .triton.table import TABLE


class NsaAttention(AttentionMixer):
    """Three branches on one set of keys and values, weighed by sigmoid gates of the token, for each query head.

    The gates travel with the queries: `project` lays them behind the channels of a head, `attend` and `extend` take
    them off. The rows of a block in ``k_mean`` and ``v_mean`` are written by the token that completes it, and not read
    before. A decode step reads the means of complete blocks, and each row of the chosen blocks and the window once.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.gate = nn.Linear(shape.d_model, 3 * shape.n_heads, bias=False)
        self.sizes = options.sizes

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q with gates `[B, T, Hq, D + 3]`, k and v `[B, T, Hkv, D]` of `x` `[B, T, D]` at `positions` `[B, T]`."""
        q, k, v = super().project(x, positions)
        gates = torch.unflatten(self.gate(x).sigmoid(), -1, (self.n_heads, 3))
        return torch.cat((q, gates), dim=-1), k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        return nsa_attention(LaidOut(q, k, v, cu_seqlens=cu_seqlens), gates=gates, sizes=self.sizes)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, count = dict(state.tensors), k.shape[1]
        rows = token_indices(state, count)
        for name, new in (("k", k), ("v", v)):
            tensors[name] = write_rows(tensors[name], rows, new)
            tensors[f"{name}_mean"] = write_new_means(
                tensors[f"{name}_mean"],
                tensors[name],
                state.lengths,
                count,
                block_size=self.sizes.block_size,
                table=TABLE,
            )
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        tensors, after = self.remember(k, v, state), state.lengths + q.shape[1]
        if q.shape[1] == 1:
            caches = {"k": tensors["k"], "v": tensors["v"], "k_means": tensors["k_mean"], "v_means": tensors["v_mean"]}
            cache = NsaCache(**caches, lengths=after)
            o = nsa_attention_step(q[:, 0], cache, gates=gates[:, 0], sizes=self.sizes)
            return o[:, None], tensors
        keys, values = self.filled(tensors, state, q)
        out = nsa_attention(LaidOut(q, keys, values, lengths=after), gates=gates, sizes=self.sizes)
        return out, tensors
