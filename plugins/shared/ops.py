"""Attention over a cache that another layer wrote: the pure op."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.ops.band import band_attention, window_mask
from archsearch.ops.cached import cached_attention
from archsearch.ops.impl import choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, explicit_attention, masked_attention

OP = "shared_attention"
WHY = "scaled_dot_product_attention over what the writer laid out"


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values `[B, S, Hkv, D]` of one pass: those of its tokens, packed perhaps by ``cu_seqlens``; or after a
    state the first ``lengths`` `[B]` rows, of which the last are its tokens. ``window``: keys that a query sees, 0 for
    all."""

    k: Tensor
    v: Tensor
    window: int
    cu_seqlens: Tensor | None = None
    lengths: Tensor | None = None


def shared_attention(q: Tensor, cache: Cache, *, impl: str = "auto") -> Tensor:
    """softmax(q k^T D^-0.5) v over what each query of `[B, T, Hq, D]` sees, `[B, T, Hq, D]`.

    ``impl`` "reference" forms explicit products. Raises `ShapeError`, `OptionsError`, `KernelUnavailableError`.
    """
    explicit = choose_impl(OP, impl, why=WHY) == "reference"
    k, v = cache.k.to(q.dtype), cache.v.to(q.dtype)
    if q.shape[1] == 1 and cache.lengths is not None:  # of a window, the rows of a ring are in any order
        return cached_attention(q[:, 0], k, v, cache.lengths, impl="reference" if explicit else "auto")[:, None]

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys = q.shape[1], k.shape[1]
        if cache.window and not explicit:
            return band_attention(q, k, v, window=cache.window)
        if not cache.window and not explicit:
            return masked_attention(q, k, v, None if queries == keys else causal_mask(queries, keys, q.device))
        index = torch.arange(keys, device=q.device)
        return explicit_attention(
            q, k, v, window_mask(index[keys - queries :], index, window=cache.window or keys, sinks=0)
        )

    return LaidOut(q, k, v, cu_seqlens=cache.cu_seqlens, lengths=cache.lengths).each_apart(OP, form)
