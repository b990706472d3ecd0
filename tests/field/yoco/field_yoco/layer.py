"""The layers that write one cache and that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.rotary import Rotary
from archsearch.ops.softmax import masked_attention

from . import producer_of


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values `[B, S, Hkv, D]` of one pass: those of its tokens, or with ``last`` `[B, T]`, the row of each
    token, all rows that are filled."""

    k: Tensor
    v: Tensor
    last: Tensor | None

    def attended(self, q: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """q `[B, T, Hq, D]` to `[B, T, Hq, D]`, each token seeing the rows up to its own."""
        k, v = self.k.to(q.dtype), self.v.to(q.dtype)
        if self.last is None:
            return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart("field-yoco", masked_attention)
        return masked_attention(q, k, v, torch.arange(k.shape[1], device=q.device) <= self.last[..., None])


class _Attention(Mixer):
    """Queries and output of both layers; `cache` gives what they attend over."""

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        width = shape.n_heads * shape.head_dim
        self.q, self.out = nn.Linear(shape.d_model, width, bias=False), nn.Linear(width, shape.d_model, bias=False)
        self.rotary = Rotary(shape.head_dim)

    def cache(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Cache, dict[str, Tensor]]:
        """What `x` `[B, T, D]` attends over, and the state's tensors with it."""
        raise NotImplementedError

    def turned(self, x: Tensor, project: nn.Linear, state: MixerState | None, ctx: Context) -> Tensor:
        """Heads `[B, T, H, D]`, each token turned by its position."""
        heads = project(x).unflatten(-1, (-1, self.shape.head_dim))
        turned: Tensor = self.rotary(ctx.positions_of(x, None if state is None else state.lengths), heads)
        return turned

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None and ctx.cu_seqlens is not None:
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        q = self.turned(x, self.q, state, ctx)
        cache, tensors = self.cache(x, state, ctx)
        y = self.out(cache.attended(q, ctx.cu_seqlens).flatten(2))
        return y, None if state is None else state.after(tensors, x.shape[1])


class Producer(_Attention):
    """Writes the cache, and shares it as "cache"."""

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        width = shape.n_kv_heads * shape.head_dim
        self.k, self.v = (nn.Linear(shape.d_model, width, bias=False) for _ in range(2))

    def cache(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Cache, dict[str, Tensor]]:
        k, v = self.turned(x, self.k, state, ctx), self.v(x).unflatten(-1, (-1, self.shape.head_dim))
        if state is None:
            tensors, cache = {}, Cache(k=k, v=v, last=None)
        else:
            filled = state.check_room(x.shape[1], ctx.held) + x.shape[1]
            rows = ctx.order_of(x, state.lengths)
            tensors = {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}
            cache = Cache(k=tensors["k"][:, :filled], v=tensors["v"][:, :filled], last=rows)
        ctx.share(self.layer, "cache", cache)
        return cache, tensors


class Reader(_Attention):
    """Reads what the producer shared in the same pass."""

    def cache(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Cache, dict[str, Tensor]]:
        producer = producer_of(self.layer)
        assert producer is not None, "check() refuses a reader without a producer"
        cache: Cache = ctx.shared_by(producer, "cache")
        return cache, {}
