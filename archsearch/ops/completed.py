"""Blocks that new tokens complete: which they are, their rows, and a cache with a row a block.

T new tokens come after `lengths` `[B]` others of their sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.cache import write_rows


def touched(lengths: Tensor, count: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Blocks `[B, m]` among which are those that `count` new tokens complete, and whether they do."""
    index = torch.arange((count + block_size - 1) // block_size, device=lengths.device)
    blocks = (lengths // block_size)[:, None] + index
    return blocks, (blocks + 1) * block_size <= (lengths + count)[:, None]


def write_complete(cache: Tensor, blocks: Tensor, complete: Tensor, new: Tensor) -> Tensor:
    """`cache` with `new` `[B, m, ...]` at `blocks` `[B, m]` where `complete`; other rows stay as they are."""
    old = cache[torch.arange(len(cache), device=cache.device)[:, None], blocks]
    where = complete.view(*complete.shape, *[1] * (new.dim() - 2))
    return write_rows(cache, blocks, torch.where(where, new.to(cache.dtype), old))


def rows_of(x: Tensor, blocks: Tensor, block_size: int, first: Tensor | None = None) -> Tensor:
    """The rows `[B, m, block_size, ...]` of x `[B, S, ...]` of `blocks` `[B, m]`; past its end the last again.

    ``first`` `[B]`: the token that the first row of x is of, 0 unless given.
    """
    rows = blocks[..., None] * block_size + torch.arange(block_size, device=x.device)
    rows = rows if first is None else rows - first[:, None, None]
    sequence = torch.arange(len(x), device=x.device)[:, None, None]
    return x[sequence, rows.clamp(0, x.shape[1] - 1)]


def first_positions(place: Tensor, positions: Tensor, lengths: Tensor, block_size: int) -> Tensor:
    """Positions of the first token of each touched block, `[B, m + 1]`; ``place`` `[B, 1]` is that of one begun before.

    positions `[B, T]` of the new tokens, T at least 1.
    """
    count = positions.shape[1]
    index = torch.arange((count + block_size - 1) // block_size + 1, device=positions.device)
    start = index * block_size - (lengths % block_size)[:, None]
    return torch.where(start < 0, place, positions.gather(1, start.clamp(0, count - 1)))
