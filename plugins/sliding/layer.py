"""The layer of sliding-window attention, and its cache: the sinks, then a ring of the last ``window`` tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices, write_rows
from archsearch.model.softmax import masked_attention

from .ops import window_attention, window_attention_step, window_mask
from .options import SlidingOptions

_BLOCK = 64


class SlidingAttention(AttentionMixer):
    """Token t sees the last ``window`` tokens and the first ``sinks``.

    The cache holds ``window + sinks`` rows: token t at row t among the sinks, else at a row of the ring behind them.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(
            plugin, options, shape, layer,
            rope=options.rope, rope_base=options.rope_base, qk_norm=options.qk_norm, n_kv_heads=options.n_kv_heads,
        )  # fmt: skip
        self.window, self.sinks = options.window, options.sinks

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return window_attention(q, k, v, window=self.window, sinks=self.sinks, cu_seqlens=cu_seqlens)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, index = dict(state.tensors), token_indices(state, k.shape[1])
        last = max(0, k.shape[1] - self.window)
        # what is not a sink of its sequence in the first part is overwritten by the last window of tokens
        for part in (slice(0, min(last, self.sinks)), slice(last, None)):
            rows = self._rows(index[:, part])
            for name, new in (("k", k), ("v", v)):
                tensors[name] = write_rows(tensors[name], rows, new[:, part])
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        if q.shape[1] == 1:
            return self._decode(q, k, v, state)
        outputs, block = [], max(self.window, _BLOCK)
        for queries, keys, values in zip(*(torch.split(x, block, dim=1) for x in (q, k, v)), strict=True):
            outputs.append(self._read(queries, keys, values, state))
            tensors = self.remember(keys, values, state)
            state = replace(state, tensors=tensors, lengths=state.lengths + keys.shape[1])
        return torch.cat(outputs, dim=1), state.tensors

    def _decode(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        """The new token takes the row of the one that left its window: it sees every row that is filled."""
        tensors = self.remember(k, v, state)
        o = window_attention_step(q[:, 0], tensors["k"], tensors["v"], state.lengths + 1)
        return o[:, None], tensors

    def _read(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> Tensor:
        """A block of new tokens over the cached ones and each other."""
        keys, values = (
            torch.cat((state.tensors[name].to(new.dtype), new), dim=1) for name, new in (("k", k), ("v", v))
        )
        queries = token_indices(state, q.shape[1])
        index = torch.cat((self._held(state), queries), dim=1)
        return masked_attention(q, keys, values, window_mask(queries, index, window=self.window, sinks=self.sinks))

    def _rows(self, index: Tensor) -> Tensor:
        """The cache's row of the tokens of that index."""
        return torch.where(index < self.sinks, index, self.sinks + (index - self.sinks) % self.window)

    def _held(self, state: MixerState) -> Tensor:
        """Index of the token that each row of the cache holds, -1 for none, `[B, rows]`."""
        rows = torch.arange(state.tensors["k"].shape[1], device=state.lengths.device)
        newest = state.lengths[:, None] - 1
        turns = torch.div(newest - rows, self.window, rounding_mode="floor")
        index = torch.where(rows < self.sinks, rows, rows + turns * self.window)
        return torch.where(rows <= newest, index, -1)
