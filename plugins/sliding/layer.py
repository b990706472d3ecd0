"""The layer of sliding-window attention, and its cache: the sinks, then a ring of the last ``window`` tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

from .ops import window_attention, window_attention_step
from .options import SlidingOptions


class SlidingAttention(AttentionMixer):
    """Token t sees the last ``window`` tokens and the first ``sinks``.

    The cache holds ``window + sinks`` rows: token t at row t among the sinks, else at a row of the ring behind them.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> None:
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
        self.window, self.sinks = options.window, options.sinks
        self.sink_logits = nn.Parameter(torch.zeros(shape.n_heads)) if options.sink_logit else None
        if options.output_gate:
            self.add_gate()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return self._attention(LaidOut(q, k, v, cu_seqlens=cu_seqlens))

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, index = dict(state.tensors), token_indices(state, k.shape[1])
        last = max(0, k.shape[1] - self.window)
        # what is not a sink of its sequence in the first part is overwritten by the last window of tokens
        sinks = (slice(0, min(last, self.sinks)),) if last and self.sinks else ()
        for part in (*sinks, slice(last, None)):
            rows = self._rows(index[:, part])
            for name, new in (("k", k), ("v", v)):
                tensors[name] = write_rows(tensors[name], rows, new[:, part])
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        if q.shape[1] == 1:
            return self._decode(q, k, v, state)
        held = state.lengths.clamp(max=self.window + self.sinks)
        keys, values = (self._laid_out(state.tensors[name], new, held, state) for name, new in (("k", k), ("v", v)))
        o = self._attention(LaidOut(q, keys, values, lengths=held + q.shape[1]))
        return o, self.remember(k, v, state)

    def _attention(self, laid: LaidOut) -> Tensor:
        return window_attention(laid, window=self.window, sinks=self.sinks, sink_logits=self.sink_logits)

    def _decode(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        """The new token takes the row of the one that left its window: it sees every row that is filled."""
        rows = self._rows(token_indices(state, 1))
        tensors = {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}
        o = window_attention_step(q[:, 0], tensors["k"], tensors["v"], state.lengths + 1, sink_logits=self.sink_logits)
        return o[:, None], tensors

    def _laid_out(self, cache: Tensor, new: Tensor, held: Tensor, state: MixerState) -> Tensor:
        """The `held` `[B]` tokens of the cache in order, then T new ones `[B, T, Hkv, D]`: `[B, rows + T, Hkv, D]`.

        The tokens between the sinks and the ring are left out: a query sees the same keys at the same places.
        """
        cache = cache[:, : state.most]
        place = torch.arange(cache.shape[1], device=cache.device)
        index = torch.where(place < self.sinks, place, place + (state.lengths - held)[:, None])
        ordered = cache[torch.arange(len(cache), device=cache.device)[:, None], self._rows(index)].to(new.dtype)
        after = held[:, None] + torch.arange(new.shape[1], device=cache.device)
        return write_rows(F.pad(ordered, (0, 0, 0, 0, 0, new.shape[1])), after, new)

    def _rows(self, index: Tensor) -> Tensor:
        """The cache's row of the tokens of that index."""
        if not self.sinks:
            return index % self.window
        return torch.where(index < self.sinks, index, self.sinks + (index - self.sinks) % self.window)
