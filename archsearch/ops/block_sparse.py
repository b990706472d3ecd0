"""Block-sparse attention: means of blocks, the choice of the best few, attention over the chosen ones.

Blocks are `block_size` tokens from the start of a sequence on. ``chosen`` `[B, Hc, T, K]` int64 holds the blocks that
each query sees, no block twice, -1 for none; Hc is the number of choosers: Hq when every query head chooses for
itself, Hkv when the query heads of a key head choose together. Keys after a query's position are never seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.block_tiles import attend_blocks
from archsearch.ops.host import readable
from archsearch.ops.softmax import masked_attention

MASKED_UP_TO = 1024
"""Keys up to which masks over all of those before a query cost less than gathering the chosen blocks, on a CPU."""

STRIP = 256
"""Queries under one such mask."""


def few_keys(k: Tensor) -> bool:
    """Whether masks over the keys `[B, S, Hkv, D]` are cheaper than gathering blocks of them."""
    return k.shape[1] <= MASKED_UP_TO


def block_means(x: Tensor, block_size: int) -> Tensor:
    """Means `[B, S // block_size, H, D]` of the complete blocks of `x` `[B, S, H, D]`."""
    count, rest = divmod(x.shape[1], block_size)
    whole = x[:, : count * block_size] if rest else x
    return torch.unflatten(whole, 1, (count, block_size)).mean(2)


def block_scores(q: Tensor, means: Tensor) -> Tensor:
    """Products `[B, Hq, T, n]` of q `[B, T, Hq, D]` with block means `[B, n, Hkv, D]`, in float32 at least."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    groups = means.shape[2]
    grouped = torch.unflatten(q.to(dtype), 2, (groups, q.shape[2] // groups))
    return torch.einsum("bthgd,bnhd->bhgtn", grouped, means.to(dtype)).flatten(1, 2)


def best_blocks(scores: Tensor, count: int) -> Tensor:
    """The `count` blocks of highest score `[..., n]`, fewer when n is less; -1 where only -inf is left.

    Of blocks with equal scores the earliest are taken.
    """
    blocks = scores.shape[-1]
    count = min(count, blocks)
    values, picked = scores.topk(min(count + 1, blocks), dim=-1)
    if 0 < count < blocks and bool(((values[..., -1] == values[..., -2]) & (values[..., -1] > -torch.inf)).any()):
        values, picked = torch.sort(scores, dim=-1, descending=True, stable=True)
    return picked[..., :count].masked_fill(values[..., :count] == -torch.inf, -1)


def visible_keys(chosen: Tensor, positions: Tensor, keys: int, block_size: int) -> Tensor:
    """Mask `[B, Hc, T, keys]` of the keys that queries at `positions` `[B, T]` see."""
    blocks = -(-keys // block_size)
    seen = torch.zeros(*chosen.shape[:3], blocks + 1, dtype=torch.bool, device=chosen.device)
    seen = seen.scatter_(-1, chosen % (blocks + 1), True)[..., :blocks]
    causal = torch.arange(keys, device=chosen.device) <= positions[:, None, :, None]
    return seen[..., None].expand(*seen.shape, block_size).flatten(3)[..., :keys] & causal


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `visible`, else half the lowest number: a score added to it stays finite, and its softmax is 0.

    By arithmetic on bytes, some times as fast on a CPU as the selection by which `scaled_dot_product_attention` would
    convert a boolean mask.
    """
    return (visible.view(torch.int8) - 1).to(dtype).mul_(torch.finfo(dtype).max / 2)


def attend_chosen(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, positions: Tensor, *, block_size: int, scale: float
) -> Tensor:
    """`attend_blocks` by whichever form costs less: up to `MASKED_UP_TO` keys, masks of strips of queries."""
    if not few_keys(k):
        return attend_blocks(q, k, v, chosen, positions, block_size=block_size, scale=scale)
    size = STRIP if readable(positions) else max(1, q.shape[1])
    strips = (torch.split(q, size, 1), torch.split(chosen, size, 2), torch.split(positions, size, 1))
    outputs = []
    for rows, choice, at in zip(*strips, strict=True):
        seen = int(at.max()) + 1 if readable(at) else k.shape[1]
        visible = visible_keys(choice, at, seen, block_size)
        heads = q.shape[2] // chosen.shape[1]
        visible = visible.repeat_interleave(heads, 1) if heads > 1 else visible
        outputs.append(masked_attention(rows, k[:, :seen], v[:, :seen], additive_mask(visible, q.dtype), scale))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
