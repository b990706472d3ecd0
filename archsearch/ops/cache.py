"""Rows of a cache, as mixers keep one row a token or a block."""

from __future__ import annotations

import torch
from torch import Tensor


def write_rows(cache: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """`cache` `[B, R, ...]` with `values` `[B, T, ...]` at `rows` `[B, T]`, no row twice.

    In place, unless a gradient must flow through it.
    """
    index = (torch.arange(len(cache), device=cache.device)[:, None], rows)
    values = values.to(cache.dtype)
    if torch.is_grad_enabled() and (values.requires_grad or cache.requires_grad):
        return cache.index_put(index, values)
    return cache.index_put_(index, values)
