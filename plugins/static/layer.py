"""The layer of attention under a static pattern, and its cache: the first blocks, then a ring of the window's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import scale_of

from .ops import OP, static_attention, static_attention_step
from .options import StaticOptions
from .pattern import pattern


class StaticAttention(AttentionMixer):
    """A token of block a sees the blocks that the pattern has for a.

    Without drawn blocks the cache holds what a pattern can ask for again: token t at row t in the first blocks, else at
    a row of the ring behind them. With drawn ones it holds every token. With projections of their own for the first
    blocks (Longformer, arXiv 2004.05150, section 3.1) a query has two parts, one for these tokens and one for others.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: StaticOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.size, self.bounded = options.block_size, options.bounded
        self.kept, self.ring = options.first * self.size, (options.reach + 1) * self.size
        self.reach = options.reach
        self.pattern = partial(pattern, options, heads=self.n_kv_heads, layer=layer.index)
        width = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.first_qkv = nn.Linear(shape.d_model, width, bias=False) if options.first_projections else None

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As usual; with projections of their own for the first blocks behind each its heads by those."""
        own = super().project(x, positions)
        if self.first_qkv is None:
            return own
        heads = self.first_qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, v = heads.split([self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=2)
        first = (*self.rotary(positions, turned).split([self.n_heads, self.n_kv_heads], dim=2), v)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(own, first, strict=True))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        if self.first_qkv is None:
            return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart(OP, self._sequence)
        (q, q_first), (k, k_first), (v, v_first) = (x.chunk(2, dim=2) for x in (q, k, v))
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart(OP, self._sequence, q_first, k_first, v_first)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, index = dict(state.tensors), token_indices(state, k.shape[1])
        last = max(0, k.shape[1] - self.ring) if self.bounded else 0
        # of what comes before the last ring of tokens only the first blocks are kept
        first = (slice(0, min(last, self.kept)),) if last and self.kept else ()
        for part in (*first, slice(last, None)):
            rows = self._rows(index[:, part])
            for name, new in (("k", k), ("v", v)):
                tensors[name] = write_rows(tensors[name], rows, self._of_place(new[:, part], index[:, part]))
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        if q.shape[1] == 1:
            tensors = self.remember(k, v, state)
            caches = tensors["k"], tensors["v"]
            widened = None if self.first_qkv is None else self._widened
            asked = self._asked(q)[:, 0]
            o = static_attention_step(asked, *caches, state.lengths, self.pattern, self._rows, self.size, widened)
            return o[:, None], tensors
        left_out, index = self._left_out(state.lengths), token_indices(state, k.shape[1])
        k, v = (self._of_place(new, index) for new in (k, v))
        keys, values = (self._laid_out(state.tensors[name], new, left_out, state) for name, new in (("k", k), ("v", v)))
        positions = token_indices(state, q.shape[1]) - left_out[:, None]
        o = self._attention(self._asked(q), keys, values, positions)
        return o, self.remember(k, v, state)

    def _sequence(self, q: Tensor, k: Tensor, v: Tensor, *first: Tensor) -> Tensor:
        """Whole sequences; `first` are q, k and v by the projections of the first blocks."""
        positions = torch.arange(q.shape[1], device=q.device).expand(len(q), -1)
        if first:
            q, k, v = (torch.cat(pair, dim=2) for pair in zip((q, k, v), first, strict=True))
        k, v = self._of_place(k, positions), self._of_place(v, positions)
        return self._attention(self._asked(q), k, v, positions)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
        """Of q as `_asked` gives it over the tokens from the first on, but for whole blocks behind the first ones."""
        scale = scale_of(k, None)
        if self.first_qkv is not None:
            index = torch.arange(k.shape[1], device=k.device).expand(len(k), -1)
            k = self._widened(k, index[..., None])
        return static_attention(q, k, v, positions, self.pattern, block_size=self.size, scale=scale)

    def _of_place(self, heads: Tensor, index: Tensor) -> Tensor:
        """Of keys or values `[B, T, 2 Hkv, D]` of the tokens `index` `[B, T]` those of the projections that serve
        there, `[B, T, Hkv, D]`; as they are where there is one, or they were told apart before."""
        if self.first_qkv is None or heads.shape[2] == self.n_kv_heads:
            return heads
        own, first = heads.chunk(2, dim=2)
        return torch.where((index < self.kept)[..., None, None], first, own)

    def _asked(self, q: Tensor) -> Tensor:
        """Queries `[B, T, Hq, D]`, or with projections of their own for the first blocks `[B, T, Hq, 2 D]`: what asks
        the others, then what asks those."""
        return q if self.first_qkv is None else torch.cat(q.chunk(2, dim=2), dim=-1)

    def _widened(self, keys: Tensor, index: Tensor) -> Tensor:
        """Keys `[..., 2 D]` of `[..., D]` of the tokens `index` `[...]`, in the half of the queries that asks them,
        beside zeros."""
        first = (index < self.kept)[..., None]
        return torch.cat((torch.where(first, 0, keys), torch.where(first, keys, 0)), dim=-1)

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
