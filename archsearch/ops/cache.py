"""Rows of a cache, as mixers keep one row a token or a block."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_LARGE_BYTES = 4 << 20
"""Memory from which on numpy asks the system for large pages (Linux, ``madvise``)."""


def write_rows(cache: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """`cache` `[B, R, ...]` with `values` `[B, T, ...]` at `rows` `[B, T]`, no row twice.

    In place, unless a gradient must flow through it.
    """
    values = values.to(cache.dtype)
    kept = torch.is_grad_enabled() and (values.requires_grad or cache.requires_grad)
    if len(cache) == 1 and not kept:
        return cache.index_copy_(1, rows[0], values)
    index = (torch.arange(len(cache), device=cache.device)[:, None], rows)
    return cache.index_put(index, values) if kept else cache.index_put_(index, values)


def head_major(batch: int, rows: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros `[B, R, H, D]` whose rows of one head lie together in memory, as a CPU reads them: a decode step over rows
    of all heads takes two to three times as long."""
    return zero_rows((batch, heads, rows, head_dim), dtype=dtype, device=device).transpose(1, 2)


def zero_rows(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros of that shape; large ones on a CPU in large pages, for which torch does not ask: a decode step that reads
    a cache of 34 MB a tensor takes two thirds of the time."""
    count = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or count < _LARGE_BYTES or torch.compiler.is_compiling():
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(count, np.uint8)).view(dtype).view(shape)
