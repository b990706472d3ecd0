"""Sliding-window causal attention with sinks: the pure op."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.errors import OptionsError
from archsearch.ops.cached import cached_attention
from archsearch.ops.impl import choose_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import explicit_attention, masked_attention, scale_of

from .triton.table import TABLE

_SMALLEST_BLOCK = 64


def window_attention(
    laid: LaidOut, *, window: int, sinks: int = 0, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """Softmax attention of token t over tokens t-window+1..t and 0..sinks-1 of its sequence, `[B, T, Hq, D]`.

    Windows after Longformer (arXiv 2004.05150, section 3.1), sinks after StreamingLLM (arXiv 2309.17453, section 3).
    ``scale`` is D^-0.5 unless given. ``impl`` "chunkwise" and "triton" cost O(T (window + sinks)); "triton" leaves
    ``laid.cu_seqlens``, which must rise from 0 to T, and ``laid.lengths``, which must lie between T and S, on the
    device and unchecked. Raises `ShapeError`, `OptionsError`, `KernelUnavailableError`.
    """
    laid.check(TABLE.op)
    if window < 1 or sinks < 0:
        raise OptionsError(f"window_attention: window = {window}, sinks = {sinks}: at least 1 and 0")
    chosen = choose_attention(TABLE, laid.q, laid.v, impl, why="blocks of the band, in PyTorch")
    if chosen == "triton" and laid.q.numel():
        from .triton.launch import run

        return run(laid, window=window, sinks=sinks, scale=scale_of(laid.q, scale))
    form = _reference if chosen == "reference" else _chunkwise
    return laid.each_apart(TABLE.op, partial(form, window=window, sinks=sinks, scale=scale))


def window_attention_step(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, *, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """`window_attention` of one new token a sequence over its ring of window + sinks rows, `[B, Hq, D]`.

    q `[B, Hq, D]`; caches `[B, window + sinks, Hkv, D]`, the new token's row among them; lengths `[B]`: tokens that
    each sequence has, the new one included: so many rows are filled, or all, and the token sees every one. Otherwise
    as `archsearch.ops.cached.cached_attention`.
    """
    return cached_attention(q, k_cache, v_cache, lengths, table=TABLE, scale=scale, impl=impl)


def window_mask(queries: Tensor, keys: Tensor, *, window: int, sinks: int) -> Tensor:
    """Which keys a query sees, by the index in the sequence of each: `[..., T]` and `[..., S]` to `[..., T, S]`.

    A key of index below 0 is no token, and is seen by none.
    """
    queries, keys = queries[..., :, None], keys[..., None, :]
    # two comparisons of indices: their differences would take eight times the memory of the mask
    return (keys <= queries) & ((keys > queries - window) | (keys < sinks)) & (keys >= 0)


def _reference(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None) -> Tensor:
    return explicit_attention(q, k, v, _square_mask(q, k, window, sinks), scale)


def _chunkwise(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    if queries == keys <= window + sinks:
        return masked_attention(q, k, v, None, scale)
    if queries <= 2 * max(window, _SMALLEST_BLOCK):
        return _dense(q, k, v, window, sinks, scale)
    return _banded(q, k, v, window, sinks, scale)


def _square_mask(q: Tensor, k: Tensor, window: int, sinks: int) -> Tensor:
    index = torch.arange(k.shape[1], device=q.device)
    return window_mask(index[k.shape[1] - q.shape[1] :], index, window=window, sinks=sinks)


def _dense(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None) -> Tensor:
    """One product over the sinks and the keys that any of the queries sees in its window."""
    queries, keys = q.shape[1], k.shape[1]
    index = torch.arange(keys, device=q.device)
    first = max(0, keys - queries - window + 1)
    if first > sinks:
        seen = torch.cat((index[:sinks], index[first:]))
        k, v, index = k[:, seen], v[:, seen], index[seen]
    query = torch.arange(keys - queries, keys, device=q.device)
    return masked_attention(q, k, v, window_mask(query, index, window=window, sinks=sinks), scale)


def _banded(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None) -> Tensor:
    """Blocks of queries, each against the sinks and the band of keys that its windows span."""
    batch, queries, heads, _ = q.shape
    block, offset = max(window, _SMALLEST_BLOCK), k.shape[1] - queries
    count = -(-queries // block)
    keys, values = (_spans(x, count, block, window, sinks, offset) for x in (k, v))
    rows = F.pad(q, (0, 0, 0, 0, 0, count * block - queries)).reshape(batch * count, block, heads, -1)
    visible = _band_mask(count, block, window, sinks, offset, q.device).repeat(batch, 1, 1)
    out = masked_attention(rows, keys, values, visible, scale)
    return out.reshape(batch, count * block, heads, -1)[:, :queries]


def _spans(x: Tensor, count: int, block: int, window: int, sinks: int, offset: int) -> Tensor:
    """Keys of each block `[B * count, sinks + window - 1 + block, H, D]`, zeros where there is no token."""
    first = offset - window + 1
    band = x[:, max(first, 0) :]
    padded = F.pad(band, (0, 0, 0, 0, max(-first, 0), count * block + offset - x.shape[1]))
    spans = padded.unfold(1, window - 1 + block, block).movedim(-1, 2)
    if sinks:
        kept = F.pad(x[:, :sinks], (0, 0, 0, 0, 0, max(0, sinks - x.shape[1])))
        spans = torch.cat((kept[:, None].expand(-1, count, -1, -1, -1), spans), dim=2)
    return spans.flatten(0, 1)


def _band_mask(count: int, block: int, window: int, sinks: int, offset: int, device: torch.device) -> Tensor:
    """`[count, block, sinks + window - 1 + block]`; a sink inside the band is seen in its own column alone."""
    starts = torch.arange(count, device=device)[:, None] * block + offset
    query = starts + torch.arange(block, device=device)
    band = starts + torch.arange(1 - window, block, device=device)
    band = torch.where(band < sinks, -1, band)
    kept = torch.arange(sinks, device=device).expand(count, sinks)
    return window_mask(query, torch.cat((kept, band), dim=1), window=window, sinks=sinks)
