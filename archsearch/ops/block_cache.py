"""The cache of a block-sparse mixer: rows of chosen blocks, means of complete ones, one token's attention over rows."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.cache import write_rows
from archsearch.ops.host import readable


def block_rows(chosen: Tensor, last: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Rows of the cache `[B, Hc, K * block_size]` of the blocks that the token at `last` `[B]` chose `[B, Hc, K]`.

    With a mask of those that it sees; the others point at rows that it sees elsewhere, or at its own.
    """
    rows = chosen[..., None] * block_size + torch.arange(block_size, device=chosen.device)
    rows, at = rows.flatten(2), last[:, None, None]
    seen = (rows >= 0) & (rows <= at)
    return torch.where(seen, rows, at), seen


def gather_rows(k: Tensor, v: Tensor, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values `[B, Hc, R, D]` at `rows` `[B, Hc, R]` of k, v `[B, S, Hkv, D]`; no other row is read."""
    batch, choosers = rows.shape[:2]
    sequence = torch.arange(batch, device=rows.device)[:, None, None]
    head = (torch.arange(choosers, device=rows.device) * k.shape[2] // choosers)[:, None]
    return k[sequence, rows, head].to(dtype), v[sequence, rows, head].to(dtype)


def rows_attention(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """One query a sequence, q `[B, Hq, D]`, over gathered `keys` and `values` `[B, Hc, R, D]`, `[B, Hq, D]`.

    `seen` `[B, Hc, R]`: the rows that take part, one at least.
    """
    grouped = torch.unflatten(q * scale, 1, (keys.shape[1], -1))
    scores = (grouped @ keys.mT).to(torch.promote_types(q.dtype, torch.float32))
    weights = scores.masked_fill(~seen[:, :, None], -torch.inf).softmax(-1).to(q.dtype)
    return (weights @ values).flatten(1, 2)


def write_means(means: Tensor, x: Tensor, lengths: Tensor, count: int, block_size: int) -> Tensor:
    """`means` `[B, rows, H, D]` with those of the blocks of `x` `[B, S, H, D]` that `count` new tokens complete.

    The new tokens come after `lengths` `[B]`, and are in `x`. Rows of incomplete blocks stay as they are.
    """
    device, after = x.device, lengths + count
    blocks = (lengths // block_size)[:, None] + torch.arange((count + block_size - 1) // block_size, device=device)
    complete = (blocks + 1) * block_size <= after[:, None]
    if readable(complete) and not complete.any():
        return means
    rows = (blocks[..., None] * block_size + torch.arange(block_size, device=device)).clamp(
        max=after[:, None, None] - 1
    )
    sequence = torch.arange(len(x), device=device)[:, None]
    new = x[sequence[..., None], rows].mean(2).to(means.dtype)
    old = means[sequence, blocks]
    return write_rows(means, blocks, torch.where(complete[..., None, None], new, old))
