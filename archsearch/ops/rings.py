"""Rings of the last tokens: the row of a token is its index in its sequence modulo the rows that there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.cache import write_rows


def in_order(ring: Tensor, new: Tensor, lengths: Tensor) -> Tensor:
    """`[B, R + T, ...]` of a ring `[B, R, ...]` and T new tokens after `lengths` `[B]` others: row j is the token
    ``lengths - R + j`` of its sequence, zeros before the first."""
    rows = ring.shape[1]
    if not rows:
        return new
    index = lengths[:, None] - rows + torch.arange(rows, device=ring.device)
    old = ring[torch.arange(len(ring), device=ring.device)[:, None], index % rows]
    there = (index >= 0).view(*index.shape, *[1] * (new.dim() - 2))
    return torch.cat((torch.where(there, old, 0).to(new.dtype), new), dim=1)


def laid_out(ring: Tensor, new: Tensor, held: Tensor, lengths: Tensor) -> Tensor:
    """`[B, R + T, H, D]`: the `held` `[B]` tokens of the ring `[B, R, H, D]` in order, then T new ones, after `lengths`
    `[B]` others."""
    index = (lengths - held)[:, None] + torch.arange(ring.shape[1], device=ring.device)
    old = ring[torch.arange(len(ring), device=ring.device)[:, None], index % ring.shape[1]].to(new.dtype)
    after = held[:, None] + torch.arange(new.shape[1], device=ring.device)
    return write_rows(F.pad(old, (0, 0, 0, 0, 0, new.shape[1])), after, new)


def written(ring: Tensor, new: Tensor, lengths: Tensor) -> Tensor:
    """The ring with the last of T new tokens."""
    count, rows = new.shape[1], ring.shape[1]
    last = torch.arange(max(0, count - rows), count, device=ring.device)
    return write_rows(ring, (lengths[:, None] + last) % rows, new[:, last[0] :]) if rows else ring
