"""The layer of attention with a learned prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import masked_attention

if TYPE_CHECKING:
    from . import PrefixOptions


class PrefixAttention(AttentionMixer):
    """The cache holds the prefix at its first P rows, token t at row P + t."""

    def __init__(self, plugin: MixerPlugin[Any], options: PrefixOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        rows = (options.prefix, self.n_kv_heads, self.head_dim)
        self.prefix_k, self.prefix_v = (nn.Parameter(torch.randn(rows) * shape.d_model**-0.5) for _ in range(2))

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """No tokens, and the prefix in its rows."""
        state = super().init_state(batch, capacity, dtype=dtype, device=device)
        for name, prefix in (("k", self.prefix_k), ("v", self.prefix_v)):
            empty = state.tensors[name][:, len(prefix) :]
            rows = prefix.to(empty.device, empty.dtype).expand(batch, -1, -1, -1)
            state.tensors[name] = torch.cat((rows, empty), 1)
        return state

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart("field-prefix", self._whole)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        rows = len(self.prefix_k) + token_indices(state, k.shape[1])
        return {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, prefix = self.remember(k, v, state), len(self.prefix_k)
        filled = prefix + state.most + q.shape[1]
        keys, values = (tensors[name][:, :filled].to(q.dtype) for name in ("k", "v"))
        last = prefix + token_indices(state, q.shape[1])[..., None]
        return masked_attention(q, keys, values, torch.arange(keys.shape[1], device=q.device) <= last), tensors

    def _whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A whole sequence after the prefix."""
        tokens, prefix = q.shape[1], len(self.prefix_k)
        keys, values = (
            torch.cat((rows.to(new.dtype).expand(len(new), -1, -1, -1), new), 1)
            for rows, new in ((self.prefix_k, k), (self.prefix_v, v))
        )
        visible = torch.ones(tokens, prefix + tokens, dtype=torch.bool, device=q.device).tril(prefix)
        return masked_attention(q, keys, values, visible)
