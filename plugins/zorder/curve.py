"""The curve: places of points on it, and the keys that lie around a query's, for the queries of many chunks at once."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.pieces import pieces

_NEVER = torch.iinfo(torch.int64).max


def places(points: Tensor, bits: int) -> Tensor:
    """Places `[...]` int64 on the curve of points `[..., d]`: their channels, squashed to 0..1 and cut to `bits` bits,
    bit by bit in turn, the highest first (Morton order; ZETA, arXiv 2501.14577, equation 4)."""
    cells = (points.double().sigmoid() * 2**bits).long().clamp(0, 2**bits - 1)
    channels = cells.shape[-1]
    found = torch.zeros_like(cells[..., 0])
    for bit in range(bits):
        for channel in range(channels):
            place = bit * channels + channels - 1 - channel
            found |= ((cells[..., channel] >> bit) & 1) << place
    return found


def neighbours(asked: Tensor, known: Tensor, order: Tensor, chunk: int, count: int) -> Tensor:
    """Tokens `[B, H, T, count]` of complete chunks before a query's own, whose places lie around its; -1 for none.

    asked `[B, H, T]` are places of queries, the index of each in its sequence ``order`` `[B, T]`, one after the other;
    known `[B, G, S]` those of all keys. About half of the tokens come before a query's place among the sorted ones, and
    half after; near an end of the curve more of the other side.
    """
    batch, heads, tokens = asked.shape
    groups, keys = known.shape[1:]
    first = order[:, :1] // chunk  # the chunk of the first query
    slots = (tokens + chunk - 2) // chunk + 1
    lane = (order - first * chunk)[:, None].expand(-1, heads, -1)
    laid = asked.new_zeros(batch, heads, slots * chunk).scatter(2, lane, asked)
    laid = laid.view(batch, groups, heads // groups, slots, chunk)
    before = (first + torch.arange(slots, device=known.device)) * chunk
    parts = pieces(slots, batch * groups * keys, longest=slots)
    found = [_around(laid[:, :, :, part], known, before[:, part], count) for part in parts]
    near = torch.cat(found, dim=3).view(batch, heads, slots * chunk, count)
    return near.gather(2, lane[..., None].expand(-1, -1, -1, count))


def _around(asked: Tensor, known: Tensor, before: Tensor, count: int) -> Tensor:
    """Tokens `[B, G, g, s, chunk, count]` of the first `before` `[B, s]` of `known` `[B, G, S]`, for queries
    `[B, G, g, s, chunk]`."""
    batch, groups, shared, slots, chunk = asked.shape
    index = torch.arange(known.shape[2], device=known.device)
    hidden = (index >= before[..., None])[:, None]
    ordered, token = known[:, :, None].masked_fill(hidden, _NEVER).sort(dim=-1, stable=True)  # [B, G, s, S]
    wanted = asked.transpose(2, 3).flatten(3)
    at = torch.searchsorted(ordered, wanted.contiguous())
    there = before[:, None, :, None]
    start = torch.minimum(at - count // 2, there - count).clamp(min=0)
    rows = start[..., None] + torch.arange(count, device=known.device)
    seen = rows < there[..., None]
    flat = rows.clamp(max=max(0, known.shape[2] - 1)).flatten(3)
    near = token.gather(3, flat).view(rows.shape).masked_fill(~seen, -1)
    return near.view(batch, groups, slots, shared, chunk, count).transpose(2, 3)
