"""The layer of attention under a static pattern, and its cache: the first blocks, then a ring of the window's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

from .ops import OP, static_attention, static_attention_step
from .options import StaticOptions
from .pattern import pattern


class StaticAttention(AttentionMixer):
    """A token of block a sees the blocks that the pattern has for a.

    Without drawn blocks the cache holds what a pattern can ask for again: token t at row t in the first blocks, else at
    a row of the ring behind them. With drawn ones it holds every token.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.size, self.bounded = options.block_size, options.bounded
        self.kept, self.ring = options.first * self.size, (options.reach + 1) * self.size
        self.reach = options.reach
        self.pattern = partial(pattern, options, heads=self.n_kv_heads, layer=layer.index)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart(OP, self._sequence)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, index = dict(state.tensors), token_indices(state, k.shape[1])
        last = max(0, k.shape[1] - self.ring) if self.bounded else 0
        # of what comes before the last ring of tokens only the first blocks are kept
        first = (slice(0, min(last, self.kept)),) if last and self.kept else ()
        for part in (*first, slice(last, None)):
            rows = self._rows(index[:, part])
            for name, new in (("k", k), ("v", v)):
                tensors[name] = write_rows(tensors[name], rows, new[:, part])
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        if q.shape[1] == 1:
            tensors = self.remember(k, v, state)
            caches = tensors["k"], tensors["v"]
            o = static_attention_step(q[:, 0], *caches, state.lengths, self.pattern, self._rows, self.size)
            return o[:, None], tensors
        left_out = self._left_out(state.lengths)
        keys, values = (self._laid_out(state.tensors[name], new, left_out, state) for name, new in (("k", k), ("v", v)))
        positions = token_indices(state, q.shape[1]) - left_out[:, None]
        o = static_attention(q, keys, values, positions, self.pattern, block_size=self.size)
        return o, self.remember(k, v, state)

    def _sequence(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        positions = torch.arange(q.shape[1], device=q.device).expand(len(q), -1)
        return static_attention(q, k, v, positions, self.pattern, block_size=self.size)

    def _left_out(self, lengths: Tensor) -> Tensor:
        """Tokens `[B]` between the first blocks and the window of the next token, whole blocks: no more is asked for
        them, and without them the pattern stays the same."""
        if not self.bounded:
            return torch.zeros_like(lengths)
        return ((lengths // self.size - self.reach) * self.size - self.kept).clamp(min=0)

    def _laid_out(self, cache: Tensor, new: Tensor, left_out: Tensor, state: MixerState) -> Tensor:
        """The cache's tokens in order but for the `left_out` `[B]`, then T new ones `[B, T, Hkv, D]`."""
        place = torch.arange(min(cache.shape[1], state.most), device=cache.device)
        index = torch.where(place < self.kept, place, place + left_out[:, None])
        ordered = cache[torch.arange(len(cache), device=cache.device)[:, None], self._rows(index)].to(new.dtype)
        after = token_indices(state, new.shape[1]) - left_out[:, None]
        return write_rows(F.pad(ordered, (0, 0, 0, 0, 0, new.shape[1])), after, new)

    def _rows(self, index: Tensor) -> Tensor:
        """The cache's rows of the tokens of that index."""
        if not self.bounded:
            return index
        return torch.where(index < self.kept, index, self.kept + (index - self.kept) % self.ring)
