"""Removals along another vector than the written key, as two steps a token: one that takes away, one that writes.

The first step decays, reads and takes away along e, and writes nothing; the second writes k v^T, takes nothing away,
and is read by the query. So the triangular system has one kind of keys, e and k in turn, and kernels for a removal
along the written key serve both, on twice the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tokens import Removal, Tokens


def in_two_steps(tokens: Tokens) -> Tokens:
    """`Tokens` `[B, T, ...]` with a removal along a vector of its own as tokens `[B, 2 T, ...]` with one along k; q and
    k then have a head for each value head. The outputs are those of every second token."""
    removal = tokens.removal
    assert removal is not None
    assert removal.along is not None
    q, k, v, log_decay, _ = tokens.flat
    groups = v.shape[2] // q.shape[2]
    if groups > 1:
        q, k = q.repeat_interleave(groups, dim=2), k.repeat_interleave(groups, dim=2)
    if log_decay is not None:
        log_decay = log_decay.expand(*v.shape[:2], -1) if log_decay.dim() == 1 else log_decay
        log_decay = _in_turn(log_decay, torch.zeros_like(log_decay))
    return Tokens(
        _in_turn(torch.zeros_like(q), q),
        _in_turn(removal.along.to(k.dtype), k),
        _in_turn(torch.zeros_like(v), v),
        log_decay=log_decay,
        removal=Removal(read=_in_turn(removal.read, torch.zeros_like(removal.read)), early=removal.early),
    )


def _in_turn(first: Tensor, second: Tensor) -> Tensor:
    """`[B, T, ...]` of each step as `[B, 2 T, ...]`, step after step."""
    return torch.stack((first, second), dim=2).flatten(1, 2)
