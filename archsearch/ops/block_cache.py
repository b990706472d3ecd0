"""The cache of a block-sparse mixer: rows of chosen blocks, means of complete ones, one token's attention over rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.kernels import Table
from archsearch.ops.cache import write_rows
from archsearch.ops.fused import trained
from archsearch.ops.host import readable
from archsearch.ops.impl import choose_attention

BLOCKS_IN_PYTORCH = "blocks and those who chose them, in PyTorch"
"""The form of block-sparse attention beside its kernels, as the choice of impl says it."""


@dataclass(frozen=True, kw_only=True)
class BlockCache:
    """k, v `[B, S, Hkv, D]` of which each sequence has filled the first ``lengths`` `[B]` rows, 1 at least; and the
    ``means`` `[B, n, Hkv, D]` of the keys of complete blocks; of any floating dtype."""

    k: Tensor
    v: Tensor
    means: Tensor
    lengths: Tensor


def block_rows(chosen: Tensor, last: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Rows of the cache `[B, Hc, K * block_size]` of the blocks that the token at `last` `[B]` chose `[B, Hc, K]`.

    With a mask of those that it sees; the others point at rows that it sees elsewhere, or at its own.
    """
    rows = chosen[..., None] * block_size + torch.arange(block_size, device=chosen.device)
    rows, at = rows.flatten(2), last[:, None, None]
    seen = (rows >= 0) & (rows <= at)
    return torch.where(seen, rows, at), seen


def needed_rows(rows: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """`rows` and `seen` `[..., R]` without the columns that no query sees, where the host may ask: the end of an own
    block that is not complete, and blocks that there are not."""
    if not readable(seen):
        return rows, seen
    columns = seen.flatten(end_dim=-2).any(0)
    return (rows, seen) if columns.all() else (rows[..., columns], seen[..., columns])


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


def write_new_means(means: Tensor, x: Tensor, lengths: Tensor, count: int, *, block_size: int, table: Table) -> Tensor:
    """`write_means` after `count` tokens that a mixer's state has just taken; of one token by `write_mean`."""
    if count == 1:
        return write_mean(means, x, lengths + 1, block_size=block_size, table=table)
    return write_means(means, x, lengths, count, block_size)


def write_mean(
    means: Tensor, x: Tensor, lengths: Tensor, *, block_size: int, table: Table, impl: str = "auto"
) -> Tensor:
    """`means` `[B, n, H, D]` with that of the block of x `[B, S, H, D]` that the last token completes, if it does.

    lengths `[B]` include the last token. By a kernel where that of the decode step of `table` would run, in place;
    where a gradient is to flow through x, in PyTorch, so that the means that earlier steps have read stay as they were.
    """
    if not trained(x, means) and choose_attention(table, x, x, impl, why=BLOCKS_IN_PYTORCH) == "triton":
        from archsearch.ops.triton.launch.means import write_mean as launch

        launch(means, x, lengths, block_size, table.op)
        return means
    return write_means(means, x, lengths - 1, 1, block_size)


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
