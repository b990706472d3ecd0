"""The layer of native sparse attention, and its cache: keys and values, and their means of each complete block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices, write_rows
from archsearch.model.block_cache import block_rows, gather_rows, rows_attention, write_means, written_part

from .ops import attend_at, choose_blocks, gated_sum, mean_weights, nsa_attention, weighted
from .options import NsaOptions


class NsaAttention(AttentionMixer):
    """Three branches on one set of keys and values, weighed by sigmoid gates of the token, for each query head.

    The gates travel with the queries: `project` lays them behind the channels of a head, `attend` and `extend` take
    them off. The rows of a block in ``k_mean`` and ``v_mean`` are written by the token that completes it, and not read
    before. A decode step reads the means of complete blocks, and each row of the chosen blocks and the window once.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.gate = nn.Linear(shape.d_model, 3 * shape.n_heads, bias=False)
        self.block_size, self.top_k, self.window = options.block_size, options.top_k, options.window
        self.scale = shape.head_dim**-0.5

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q with gates `[B, T, Hq, D + 3]`, k and v `[B, T, Hkv, D]` of `x` `[B, T, D]` at `positions` `[B, T]`."""
        q, k, v = super().project(x, positions)
        gates = torch.unflatten(self.gate(x).sigmoid(), -1, (self.n_heads, 3))
        return torch.cat((q, gates), dim=-1), k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        return nsa_attention(
            q,
            k,
            v,
            gates=gates,
            block_size=self.block_size,
            top_k=self.top_k,
            window=self.window,
            cu_seqlens=cu_seqlens,
        )

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, rows = dict(state.tensors), token_indices(state, k.shape[1])
        for name, new in (("k", k), ("v", v)):
            tensors[name] = write_rows(tensors[name], rows, new)
            means = tensors[f"{name}_mean"]
            tensors[f"{name}_mean"] = write_means(means, tensors[name], state.lengths, k.shape[1], self.block_size)
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        tensors, positions = self.remember(k, v, state), token_indices(state, q.shape[1])
        if q.shape[1] == 1:
            return self._step(q, gates, tensors, positions), tensors
        keys, values = (written_part(tensors[name], positions).to(q.dtype) for name in ("k", "v"))
        out = attend_at(
            q, keys, values, gates, positions,
            block_size=self.block_size, top_k=self.top_k, window=self.window, scale=self.scale,
        )  # fmt: skip
        return out, tensors

    def _step(self, q: Tensor, gates: Tensor, tensors: dict[str, Tensor], positions: Tensor) -> Tensor:
        """The token at `positions` `[B, 1]`, q `[B, 1, Hq, D]`: the branches of it alone, `[B, 1, Hq, D]`."""
        complete = (positions[:, 0] + 1) // self.block_size
        held = torch.arange(int(complete.max()), device=q.device) < complete[:, None]
        key_means, value_means = (
            torch.where(held[..., None, None], tensors[name][:, : held.shape[1]], 0).to(q.dtype)
            for name in ("k_mean", "v_mean")
        )
        weights = mean_weights(q, key_means, positions, self.block_size, self.scale)
        chosen = choose_blocks(weights, positions // self.block_size, self.n_kv_heads, self.top_k)[:, :, 0]
        selected, local = self._read_rows(q, tensors, chosen, positions[:, 0])
        return gated_sum(gates, weighted(weights, value_means), selected, local)

    def _read_rows(self, q: Tensor, tensors: dict[str, Tensor], chosen: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Selection and window `[B, 1, Hq, D]` of the token at `last` `[B]`, over one gathering of the rows of both."""
        rows, seen = block_rows(chosen, last, self.block_size)
        at = last[:, None, None]
        outside = seen & (rows <= at - self.window)
        near = (at - torch.arange(min(self.window, int(last.max()) + 1), device=q.device)).expand(*chosen.shape[:2], -1)
        inside = near >= 0
        picked = (near[..., None] // self.block_size == chosen[:, :, None]).any(-1) & inside
        keys, values = gather_rows(
            tensors["k"], tensors["v"], torch.cat((near.clamp(min=0), torch.where(outside, rows, at)), dim=-1), q.dtype
        )
        select, window = torch.cat((picked, outside), dim=-1), torch.cat((inside, torch.zeros_like(outside)), dim=-1)
        selected, local = (
            rows_attention(q[:, 0], keys, values, mask, self.scale)[:, None] for mask in (select, window)
        )
        return selected, local
