"""Attention over chosen blocks in tiles: the queries that chose a block are brought together, and meet it at once.

The parts that a query got of its blocks are merged by their log-sum-exps, as MoBA does (arXiv 2502.13189,
algorithm 1). The backward pass makes the weights again from the merged log-sum-exp (FlashAttention, arXiv 2205.14135,
section 3.1), so that no weight is stored; a few tiles are worked on at a time, so that they stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_ELEMENTS = 2**18
"""Scores worked on at a time."""


def attend_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chosen: Tensor,
    positions: Tensor,
    *,
    block_size: int,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """softmax(scale q k^T) v over the chosen blocks' keys up to each query's position, `[B, T, Hq, D]`.

    q `[B, T, Hq, D]` at `positions` `[B, T]`; k, v `[B, S, Hkv, D]`; `chosen` `[B, Hc, T, K]` as `block_sparse` has
    it. Every query must choose a block, and see a key of each that it chose; with `window`, it sees none but the last
    that many keys. Costs T K block_size products and T K memory.
    """
    blocks = -(-k.shape[1] // block_size)
    rows = torch.unflatten(q, 2, (chosen.shape[1], -1)).transpose(1, 2).flatten(0, 2)
    tiles = _plan(chosen, positions, blocks, block_size, rows.shape[1], k.shape[2])
    limits = _Limits(block_size=block_size, blocks=blocks, window=window, scale=scale)
    keys, values = (_split_blocks(x, block_size) for x in (k, v))
    merged: Tensor = _TileAttention.apply(rows, keys, values, tiles, limits)  # type: ignore[no-untyped-call]
    return merged.view(*chosen.shape[:3], *merged.shape[1:]).transpose(1, 2).flatten(2, 3)


def _split_blocks(x: Tensor, block_size: int) -> Tensor:
    """`[B, S, H, D]` to `[B * H * blocks, block_size, D]`, the last block filled with zeros."""
    padded = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % block_size))
    return torch.unflatten(padded.transpose(1, 2), 2, (-1, block_size)).flatten(0, 2)


@dataclass(frozen=True, kw_only=True)
class _Limits:
    block_size: int
    blocks: int
    window: int | None
    scale: float


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """N tiles of P places, for a query row each; a query row is the query heads that share a choice.

    ``query`` `[N, P]`: the query row at each place; ``at`` `[N, P]`: its position, -1 where the place is empty;
    ``block`` `[N]`: the row of keys and values; ``slot`` `[rows, K]`: the place of each choice, -1 for none.
    """

    query: Tensor
    at: Tensor
    block: Tensor
    slot: Tensor


def _plan(chosen: Tensor, positions: Tensor, blocks: int, block_size: int, heads: int, key_heads: int) -> _Tiles:
    """Tiles about as tall as a block is long, which leaves few places empty; `heads` query heads share a choice."""
    batch, choosers, count, slots = chosen.shape
    device, size = chosen.device, max(8, min(block_size, 128) // heads)
    lane = torch.arange(batch * choosers, device=device).view(batch, choosers, 1, 1)
    made = (chosen >= 0).flatten().nonzero()[:, 0]
    key, order = (lane * blocks + chosen).flatten()[made].sort(stable=True)
    pairs = made[order]
    counts = torch.bincount(key, minlength=batch * choosers * blocks)
    tiles = (counts + size - 1) // size
    first_place, first_pair = (tiles.cumsum(0) - tiles) * size, counts.cumsum(0) - counts
    place = torch.arange(len(key), device=device) - first_pair[key] + first_place[key]
    total = int(tiles.sum())
    where = positions[:, None].expand(batch, choosers, count).flatten()
    owner = torch.arange(len(counts), device=device).repeat_interleave(tiles, output_size=total)
    return _Tiles(
        query=_put(0, total * size, place, pairs // slots).view(total, size),
        at=_put(-1, total * size, place, where[pairs // slots]).view(total, size),
        block=owner // blocks // (choosers // key_heads) * blocks + owner % blocks,
        slot=_put(-1, chosen.numel(), pairs, place).view(-1, slots),
    )


def _put(rest: int, size: int, where: Tensor, values: Tensor) -> Tensor:
    return torch.full((size,), rest, dtype=torch.int64, device=where.device).index_put_((where,), values)


class _TileAttention(torch.autograd.Function):
    """Rows `[rows, R, D]`, keys and values `[key rows, block_size, D or Dv]` to outputs `[rows, R, Dv]`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, keys: Tensor, values: Tensor, tiles: _Tiles, limits: _Limits) -> Tensor:
        places = tiles.query.numel()
        wide = torch.promote_types(rows.dtype, torch.float32)
        shape = (rows.shape[1], values.shape[2])
        parts = rows.new_empty(places, *shape, dtype=wide)
        norms = rows.new_empty(places, rows.shape[1], dtype=wide)
        size = tiles.query.shape[1]
        for piece in _pieces(tiles, rows, limits):
            scores = _scores(rows, keys, tiles, piece, limits)
            highest = scores.amax(-1, keepdim=True)
            weights = scores.sub_(highest).exp_()
            total = weights.sum(-1, keepdim=True)
            outputs = weights.to(rows.dtype) @ values[tiles.block[piece]]
            span = slice(piece.start * size, piece.stop * size)
            parts[span] = (outputs / total).view(-1, *shape)
            norms[span] = (highest + total.log()).view(-1, rows.shape[1])
        merged, norm = _merge(parts, norms, tiles.slot)
        merged = merged.to(rows.dtype)
        ctx.save_for_backward(rows, keys, values, merged, norm)
        ctx.tiles, ctx.limits = tiles, limits
        return merged

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, keys, values, merged, norm = ctx.saved_tensors
        tiles, limits = ctx.tiles, ctx.limits
        wide = norm.dtype
        d_rows, d_keys, d_values = (torch.zeros_like(x, dtype=wide) for x in (rows, keys, values))
        inner = (grad.to(wide) * merged).sum(-1, keepdim=True)
        for piece in _pieces(tiles, rows, limits):
            query, block = tiles.query[piece], tiles.block[piece]
            q, g, d, n = (x[query].flatten(1, 2) for x in (rows, grad, inner, norm[..., None]))
            weights = _scores(rows, keys, tiles, piece, limits).sub_(n).exp_()
            d_values.index_add_(0, block, (weights.to(g.dtype).mT @ g).to(wide))
            d_scores = (g @ values[block].mT).to(wide).sub_(d).mul_(weights).mul_(limits.scale).to(q.dtype)
            d_rows.index_add_(0, query.flatten(), (d_scores @ keys[block]).to(wide).view(-1, *rows.shape[1:]))
            d_keys.index_add_(0, block, (d_scores.mT @ q).to(wide))
        return d_rows.to(rows.dtype), d_keys.to(keys.dtype), d_values.to(values.dtype), None, None


def _pieces(tiles: _Tiles, rows: Tensor, limits: _Limits) -> Iterator[slice]:
    total, size = tiles.query.shape
    step = max(1, TILE_ELEMENTS // (size * rows.shape[1] * limits.block_size))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _scores(rows: Tensor, keys: Tensor, tiles: _Tiles, piece: slice, limits: _Limits) -> Tensor:
    """Scores `[n, P * R, block_size]` in float32 at least, -inf where the key is not seen and in empty places."""
    q, block, at = rows[tiles.query[piece]].flatten(1, 2), tiles.block[piece], tiles.at[piece][..., None]
    scores = ((q * limits.scale) @ keys[block].mT).to(torch.promote_types(q.dtype, torch.float32))
    first = (block % limits.blocks * limits.block_size)[:, None, None]
    key_at = first + torch.arange(limits.block_size, device=q.device)
    hidden = key_at > at
    if limits.window is not None:
        hidden |= key_at <= at - limits.window
    torch.unflatten(scores, 1, (-1, rows.shape[1])).masked_fill_(hidden[:, :, None], -torch.inf)
    return scores


def _merge(parts: Tensor, norms: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs `[rows, R, D]` and log-sum-exps `[rows, R]` from those of each place."""
    of_choice = norms[slot].masked_fill(slot[..., None] < 0, -torch.inf)
    norm = of_choice.logsumexp(1)
    weights = (of_choice - norm[:, None]).exp()
    merged = torch.zeros_like(parts[slot[:, 0]])
    for choice in range(slot.shape[1]):
        part = parts[slot[:, choice]] * weights[:, choice, :, None]
        merged += part.masked_fill_(slot[:, choice, None, None] < 0, 0.0)
    return merged, norm
