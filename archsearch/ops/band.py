"""Causal attention within a window: blocks of queries, each against the band of keys that its windows span."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.softmax import masked_attention

_SMALLEST_BLOCK = 64


def band_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    sinks: int = 0,
    scale: float | None = None,
    sink_logits: Tensor | None = None,
) -> Tensor:
    """Softmax attention over the last `window` keys up to each query's and the first `sinks`, `[B, T, Hq, D]`.

    q `[B, T, Hq, D]`, the last T of the S tokens of k and v `[B, S, Hkv, D]`. ``scale`` is D^-0.5 unless given;
    ``sink_logits`` `[Hq]` join the sums of the softmax, as in `explicit_attention`. Costs T (window + sinks) products.
    """
    queries, keys = q.shape[1], k.shape[1]
    if queries == keys <= window + sinks:
        return masked_attention(q, k, v, None, scale, sink_logits)
    if queries <= 2 * max(window, _SMALLEST_BLOCK):
        return _dense(q, k, v, window, sinks, scale, sink_logits)
    return _banded(q, k, v, window, sinks, scale, sink_logits)


def window_mask(queries: Tensor, keys: Tensor, *, window: int, sinks: int) -> Tensor:
    """Which keys a query sees, by the index in the sequence of each: `[..., T]` and `[..., S]` to `[..., T, S]`.

    A key of index below 0 is no token, and is seen by none.
    """
    queries, keys = queries[..., :, None], keys[..., None, :]
    # two comparisons of indices: their differences would take eight times the memory of the mask
    return (keys <= queries) & ((keys > queries - window) | (keys < sinks)) & (keys >= 0)


def _dense(
    q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None, sink_logits: Tensor | None = None
) -> Tensor:
    """One product over the sinks and the keys that any of the queries sees in its window."""
    queries, keys = q.shape[1], k.shape[1]
    index = torch.arange(keys, device=q.device)
    first = max(0, keys - queries - window + 1)
    if first > sinks:
        seen = torch.cat((index[:sinks], index[first:]))
        k, v, index = k[:, seen], v[:, seen], index[seen]
    query = torch.arange(keys - queries, keys, device=q.device)
    visible = window_mask(query, index, window=window, sinks=sinks)
    return masked_attention(q, k, v, visible, scale, sink_logits)


def _banded(
    q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int, scale: float | None, sink_logits: Tensor | None = None
) -> Tensor:
    """Blocks of queries, each against the sinks and the band of keys that its windows span."""
    batch, queries, heads, _ = q.shape
    block, offset = max(window, _SMALLEST_BLOCK), k.shape[1] - queries
    count = -(-queries // block)
    keys, values = (_spans(x, count, block, window, sinks, offset) for x in (k, v))
    rows = F.pad(q, (0, 0, 0, 0, 0, count * block - queries)).reshape(batch * count, block, heads, -1)
    visible = _band_mask(count, block, window, sinks, offset, q.device).repeat(batch, 1, 1)
    out = masked_attention(rows, keys, values, visible, scale, sink_logits)
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
