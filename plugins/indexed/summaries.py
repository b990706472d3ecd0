"""Summaries of blocks, as they are cached: what stands for the keys of a block is written when the block is complete.

A cache of summaries is `[B, rows, ...]`, a row a block; T new tokens come after `lengths` `[B]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.completed import rows_of, touched, write_complete


def write_blocks(
    cache: Tensor,
    k: Tensor,
    lengths: Tensor,
    count: int,
    block_size: int,
    summary: Callable[[Tensor], Tensor],
) -> Tensor:
    """`cache` with the `summary` of the keys of each block that `count` tokens complete.

    k `[B, S, H, D]` holds the keys of all tokens; `summary` makes `[B, m, ...]` of `[B, m, block_size, H, D]`.
    """
    blocks, complete = touched(lengths, count, block_size)
    return write_complete(cache, blocks, complete, summary(rows_of(k, blocks, block_size)))


def means(keys: Tensor) -> Tensor:
    """`[B, m, H, D]` of `[B, m, b, H, D]`."""
    return keys.mean(2)


def bounds(keys: Tensor) -> Tensor:
    """The least and the greatest of each channel, `[B, m, 2, H, D]` (Quest, arXiv 2406.10774, section 3.3)."""
    return torch.stack((keys.amin(2), keys.amax(2)), dim=2)


def pooled(keys: Tensor, pool: Tensor) -> Tensor:
    """Means `[B, m, H, D]` weighted by softmax(pool . key) over the block, `pool` `[H, D]`."""
    weights = torch.einsum("bmshd,hd->bmsh", keys, pool.to(keys.dtype)).softmax(2)
    return torch.einsum("bmsh,bmshd->bmhd", weights, keys)


def most_asked(keys: Tensor, asked: Tensor, count: int) -> Tensor:
    """Places in their block, `[B, m, H, count]`, of the keys of `[B, m, b, H, D]` whose products with what was `asked`
    are greatest: of a block `[B, m, H, D]`, or of each key `[B, m, b, H, D]` (InfLLM, arXiv 2402.04617, section 3.2).
    """
    dtype = torch.promote_types(keys.dtype, torch.float32)
    form = "bmshd,bmhd->bmhs" if asked.dim() < keys.dim() else "bmshd,bmshd->bmhs"
    return torch.einsum(form, keys.to(dtype), asked.to(dtype)).topk(count, dim=-1).indices


def sum_of(keys: Tensor, places: Tensor) -> Tensor:
    """Sums `[B, m, H, D]` of the keys of `[B, m, b, H, D]` at `places` `[B, m, H, r]` of their block: a query's
    products with them add up to its product with their sum."""
    heads = keys.transpose(2, 3)
    return heads.gather(3, places[..., None].expand(*places.shape, keys.shape[-1])).sum(3)


def means_after(rows: Tensor, count: int) -> Tensor:
    """Means `[B, n - count + 1, ...]` of each `count` of the `rows` `[B, n, ...]` that follow each other."""
    means = F.avg_pool1d(rows.flatten(2).transpose(1, 2), count, stride=1)
    return torch.unflatten(means.transpose(1, 2), 2, rows.shape[2:])


def block_sums(pool: Tensor, new: Tensor, lengths: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Sums over each block that the tokens touch, `[B, m + 1, ...]`, and the sum of the last, `[B, 1, ...]`.

    ``pool`` `[B, 1, ...]` is the sum over the tokens of an incomplete block before, ``new`` `[B, T, ...]` are added, in
    the dtype of `pool`; T is 1 at least.
    """
    batch, count = new.shape[:2]
    index = ((lengths % block_size)[:, None] + torch.arange(count, device=new.device)) // block_size
    sums = pool.new_zeros(batch, (count + block_size - 1) // block_size + 1, *new.shape[2:])
    where = index.view(batch, count, *[1] * (new.dim() - 2)).expand_as(new)
    sums = sums.scatter_add(1, where, new.to(pool.dtype))
    begun = (lengths % block_size > 0).view(batch, *[1] * (new.dim() - 1))
    sums = torch.cat((sums[:, :1] + torch.where(begun, pool, 0.0), sums[:, 1:]), dim=1)
    return sums, sums[torch.arange(batch, device=new.device), index[:, -1]][:, None]
