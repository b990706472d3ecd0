"""Full causal attention: the pure op."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from archsearch.ops.cached import cached_attention
from archsearch.ops.impl import choose_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, explicit_attention, masked_attention, scale_of

from .triton.table import TABLE


def full_attention(laid: LaidOut, *, scale: float | None = None, impl: str = "auto") -> Tensor:
    """Causal softmax attention, `[B, T, Hq, D]` (Attention Is All You Need, arXiv 1706.03762, equation 1).

    ``scale`` is D^-0.5 unless given. ``impl`` "chunkwise" is `scaled_dot_product_attention`, and stays "auto"'s choice
    where every sequence has S tokens. "triton" leaves ``laid.cu_seqlens``, which must rise from 0 to T, and
    ``laid.lengths``, which must lie between T and S, on the device and unchecked. Raises `ShapeError`,
    `KernelUnavailableError`.
    """
    laid.check(TABLE.op)
    chosen = choose_attention(TABLE, laid.q, laid.v, impl, why="scaled_dot_product_attention", wanted=not laid.whole)
    if chosen == "triton" and laid.q.numel():
        from .triton.launch import run

        return run(laid, scale=scale_of(laid.q, scale))
    attend = partial(_reference if chosen == "reference" else _chunkwise, scale=scale)
    return laid.each_apart(TABLE.op, attend)


def full_attention_step(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, *, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """`full_attention` of one new token a sequence over its cache, `[B, Hq, D]`.

    q `[B, Hq, D]`; caches `[B, S, Hkv, D]`, the new token's row among them; lengths `[B]`: rows that each sequence
    has filled, the new one included. Otherwise as `archsearch.ops.cached.cached_attention`.
    """
    return cached_attention(q, k_cache, v_cache, lengths, table=TABLE, scale=scale, impl=impl)


def _reference(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    return explicit_attention(q, k, v, causal_mask(q.shape[1], k.shape[1], q.device), scale)


def _chunkwise(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    # is_causal aligns the first query with the first key: right only where there are as many
    queries, keys = q.shape[1], k.shape[1]
    return masked_attention(q, k, v, None if queries == keys else causal_mask(queries, keys, q.device), scale)
