"""Mixture of block attention: the pure op."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from archsearch.errors import OptionsError
from archsearch.ops.block_cache import BLOCKS_IN_PYTORCH, BlockCache, block_rows, gather_rows, rows_attention
from archsearch.ops.block_sparse import attend_chosen, best_blocks, block_means, block_scores
from archsearch.ops.impl import choose_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, masked_attention, scale_of

from .triton.table import TABLE

CHOICE_ELEMENTS = 2**24
"""Scores held at a time while blocks are chosen."""


def moba_attention(
    laid: LaidOut, *, block_size: int, top_k: int, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """Attention over the own block and the ``top_k - 1`` past blocks of highest q . mean(k), `[B, T, Hq, D]`.

    Each query head chooses for itself among the complete blocks before its own; of equal scores the earliest; all
    where there are fewer. Causal inside the own block. Blocks are counted from the start of each sequence. ``scale`` is
    D^-0.5 unless given.

    "reference" makes the mask of all pairs, as "chunkwise" does on few tokens; on many it costs T top_k block_size, as
    "triton" does, which leaves ``laid.cu_seqlens``, which must rise from 0 to T, and ``laid.lengths``, which must lie
    between T and S, on the device and unchecked. Raises `OptionsError`, `ShapeError`, `KernelUnavailableError`. MoBA,
    arXiv 2502.13189, equations 2 to 6.
    """
    chosen = choose_attention(TABLE, laid.q, laid.v, impl, why=BLOCKS_IN_PYTORCH)
    laid.check(TABLE.op)
    for name, value in (("block_size", block_size), ("top_k", top_k)):
        if value < 1:
            raise OptionsError(f"moba_attention({name}={value}): must be at least 1")
    scale = scale_of(laid.q, scale)
    if chosen == "triton" and laid.q.numel():
        from .triton.launch.sequences import run

        return run(laid, block_size=block_size, top_k=top_k, scale=scale)
    form = _reference if chosen == "reference" else _chunkwise
    return laid.each_apart(TABLE.op, partial(form, block_size=block_size, top_k=top_k, scale=scale))


def moba_attention_step(
    q: Tensor, cache: BlockCache, *, block_size: int, top_k: int, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """`moba_attention` of one new token a sequence over its cache, `[B, Hq, D]`.

    q `[B, Hq, D]`; the new token's row is in the cache, whose means are unread where ``top_k`` is 1. Reads the means of
    the past blocks and the chosen ones' rows; the Triton form waits for nothing on the device, the others read
    ``cache.lengths``. Raises `KernelUnavailableError`.
    """
    scale = scale_of(q, scale)
    if choose_attention(TABLE, q, cache.v, impl, why=BLOCKS_IN_PYTORCH) == "triton":
        from .triton.launch.step import moba_step

        out: Tensor = moba_step(q, cache.k, cache.v, cache.means, cache.lengths, block_size, top_k, scale)
        return out
    return step_by_gathering(q, cache, block_size=block_size, top_k=top_k, scale=scale)


def step_by_gathering(q: Tensor, cache: BlockCache, *, block_size: int, top_k: int, scale: float) -> Tensor:
    """`moba_attention_step` in PyTorch."""
    last = cache.lengths - 1
    own = last // block_size
    seen_means = cache.means[:, : int(own.max())] if top_k > 1 else cache.k[:, :0]
    chosen = choose_blocks(q[:, None], seen_means.to(q.dtype), own[:, None], top_k)[:, :, 0]
    rows, seen = block_rows(chosen, last, block_size)
    keys, values = gather_rows(cache.k, cache.v, rows, q.dtype)
    return rows_attention(q, keys, values, seen, scale)


def _reference(q: Tensor, k: Tensor, v: Tensor, *, block_size: int, top_k: int, scale: float) -> Tensor:
    """By the mask of all pairs, in float32 at least."""
    dtype, queries, keys = torch.promote_types(q.dtype, torch.float32), q.shape[1], k.shape[1]
    group = q.shape[2] // k.shape[2]
    wide_q, wide_k, wide_v = (
        q.to(dtype),
        k.to(dtype).repeat_interleave(group, 2),
        v.to(dtype).repeat_interleave(group, 2),
    )
    own = torch.arange(keys - queries, keys, device=q.device)[:, None] // block_size
    block_of_key = torch.arange(keys, device=q.device) // block_size

    blocks = torch.arange(keys // block_size, device=q.device)
    means = (
        torch.stack([wide_k[:, block_of_key == block].mean(1) for block in blocks], 1) if len(blocks) else wide_k[:, :0]
    )
    scores = torch.einsum("bthd,bnhd->bhtn", wide_q, means).masked_fill(blocks >= own, -torch.inf)
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    best = (rank < top_k - 1) & (blocks < own)

    seen = torch.nn.functional.pad(best, (0, 1))[..., block_of_key] | (block_of_key == own)
    visible = seen & causal_mask(queries, keys, q.device)
    weights = (torch.einsum("bthd,bshd->bhts", wide_q, wide_k) * scale).masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, wide_v).to(q.dtype)


def _chunkwise(q: Tensor, k: Tensor, v: Tensor, *, block_size: int, top_k: int, scale: float) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    if keys <= top_k * block_size and queries == keys:
        return masked_attention(q, k, v, None, scale)
    positions = torch.arange(keys - queries, keys, device=q.device).expand(q.shape[0], queries)
    return attend_at(q, k, v, positions, block_size=block_size, top_k=top_k, scale=scale)


def attend_at(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, *, block_size: int, top_k: int, scale: float
) -> Tensor:
    """The same for queries at any `positions` `[B, T]` of their sequences; keys after a query's are not seen."""
    with torch.no_grad():
        means = block_means(k, block_size)
        count = max(1, CHOICE_ELEMENTS // max(1, q.shape[0] * q.shape[2] * means.shape[1]))
        pieces = zip(torch.split(q, count, 1), torch.split(positions, count, 1), strict=True)
        chosen = torch.cat([choose_blocks(x, means, at // block_size, top_k) for x, at in pieces], dim=2)
    return attend_chosen(q, k, v, chosen, positions, block_size=block_size, scale=scale)


def choose_blocks(q: Tensor, means: Tensor, own: Tensor, top_k: int) -> Tensor:
    """The own block, then the best past ones, `[B, Hq, T, K]`, K at most `top_k`, -1 where there are fewer.

    q `[B, T, Hq, D]`; `means` `[B, n, Hkv, D]` of the blocks' keys; `own` `[B, T]`: the block that each query is in.
    """
    own = own[:, None, :, None]
    mine, blocks = own.expand(-1, q.shape[2], -1, -1), torch.arange(means.shape[1], device=q.device)
    if top_k == 1 or not len(blocks):
        return mine
    if len(blocks) < top_k:
        past = torch.where(blocks < own, blocks, -1).expand(-1, q.shape[2], -1, -1)
    else:
        past = best_blocks(block_scores(q, means).masked_fill(blocks >= own, -torch.inf), top_k - 1)
    return torch.cat((mine, past), dim=-1)
