"""Means of blocks of a cache by a kernel, as the tokens of decode steps complete them."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import arch_of
from archsearch.kernels.config import tables
from archsearch.ops.triton.launch.attention import options
from archsearch.ops.triton.operands import rows_of_cache
from archsearch.ops.triton.parts import mean_of_last


@torch.library.custom_op("archsearch::write_mean", mutates_args=("means",))
def write_mean(means: Tensor, x: Tensor, lengths: Tensor, block_size: int, op: str) -> None:
    """Writes into means `[B, n, H, D]` that of the block which the last of the first ``lengths`` `[B]` rows of x
    `[B, S, H, D]` completes, if it does, by the configuration "mean_step" of the table of `op`."""
    table = tables[op]
    key = table.key(arch_of(x.device), x.shape[3])
    (x, *steps), (written, *places) = rows_of_cache(x), rows_of_cache(means)
    mean_of_last[x.shape[0], x.shape[2]](
        x,
        lengths.contiguous(),
        written,
        block_size,
        *steps,
        *places,
        D=x.shape[3],
        WIDTH=key[1],
        **options(table.row(key)["mean_step"]),
    )
    if written is not means:
        means.copy_(written)


@write_mean.register_fake
def _(means: Tensor, x: Tensor, lengths: Tensor, block_size: int, op: str) -> None:
    return None
