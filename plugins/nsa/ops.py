"""Native sparse attention: the pure op."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from archsearch.ops.band import band_attention
from archsearch.ops.block_cache import BLOCKS_IN_PYTORCH
from archsearch.ops.block_sparse import additive_mask, attend_chosen, best_blocks, block_means
from archsearch.ops.impl import choose_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError, masked_attention, scale_of

from .reference import reference
from .sizes import NsaSizes
from .triton.table import TABLE

CHOICE_ELEMENTS = 2**24
"""Compression scores held at a time while blocks are chosen."""


def nsa_attention(
    laid: LaidOut, *, gates: Tensor, sizes: NsaSizes, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """Sum over three branches of ``gates[..., i]`` times attention, `[B, T, Hq, D]`, to

    0. the means of keys and of values of the blocks that are complete at the token (zero while there are none);
    1. the tokens up to the own of ``top_k`` blocks: the own, block 0 (from ``top_k = 2`` on), and those of highest
       probability in branch 0, summed over the query heads of a key head; of equal ones the earliest. They are
       distinct, so that ``top_k`` blocks are seen where there are so many;
    2. the last ``window`` tokens, the own included.

    Blocks are counted from the start of each sequence. `gates` `[B, T, Hq, 3]` are taken as they are. ``scale`` is
    D^-0.5 unless given.

    "reference" makes the masks of all pairs, as "chunkwise" does on few tokens; on many it costs
    T (T / block_size + top_k block_size + window), as "triton" does, which leaves ``laid.cu_seqlens``, which must rise
    from 0 to T, and ``laid.lengths``, which must lie between T and S, on the device and unchecked. No gradient flows
    through the choice of blocks. Raises `ShapeError`, `OptionsError`, `KernelUnavailableError`. NSA, arXiv 2502.11089,
    equations 5 to 12, on one set of keys and values, with means for the learned compression.
    """
    chosen = choose_attention(TABLE, laid.q, laid.v, impl, why=BLOCKS_IN_PYTORCH)
    laid.check(TABLE.op)
    sizes.check_plain()
    wanted, scale = (*laid.q.shape[:3], 3), scale_of(laid.q, scale)
    if gates.shape != wanted:
        raise ShapeError(f"nsa_attention: gates {list(gates.shape)}: must be {list(wanted)}, three a query head")
    if chosen == "triton" and laid.q.numel():
        from .triton.launch.sequences import branches

        return gated_sum(gates, *branches(laid, sizes, scale))
    form = reference if chosen == "reference" else _chunkwise
    return laid.each_apart(TABLE.op, partial(form, sizes=sizes, scale=scale), gates)


def _chunkwise(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *, sizes: NsaSizes, scale: float) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    positions = torch.arange(keys - queries, keys, device=q.device).expand(q.shape[0], queries)
    means = block_means(k, sizes.block_size), block_means(v, sizes.block_size)
    with torch.no_grad():
        count = max(1, CHOICE_ELEMENTS // (q.shape[0] * q.shape[2] * max(1, means[0].shape[1])))
        pieces = zip(torch.split(q, count, 1), torch.split(positions, count, 1), strict=True)
        chosen = torch.cat([_choose(x, means[0], at, sizes, scale) for x, at in pieces], dim=2)
    return gated_sum(
        gates,
        _attend_means(q, *means, positions, sizes.block_size, scale),
        attend_chosen(q, k, v, chosen, positions, block_size=sizes.block_size, scale=scale),
        band_attention(q, k, v, window=sizes.window, scale=scale),
    )


def gated_sum(gates: Tensor, compressed: Tensor, selected: Tensor, local: Tensor) -> Tensor:
    """Sum of the branches `[B, T, Hq, D]` by `gates` `[B, T, Hq, 3]`."""
    first, second, third = torch.split(gates.to(selected.dtype), 1, dim=-1)
    return torch.addcmul(torch.addcmul(first * compressed, second, selected), third, local)


def mean_weights(q: Tensor, key_means: Tensor, positions: Tensor, block_size: int, scale: float) -> Tensor:
    """Softmax `[B, Hq, T, n]` of branch 0, in float32 at least; zeros for a token that no block is complete for.

    q `[B, T, Hq, D]` at `positions` `[B, T]`; `key_means` `[B, n, Hkv, D]`.
    """
    complete = _complete(key_means, positions, block_size)[:, None]
    scores = products(q.to(_wide(q)) * scale, key_means.to(_wide(q))) + additive_mask(complete, _wide(q))
    if not scores.shape[-1]:
        return scores
    raised = (scores - scores.detach().amax(-1, keepdim=True)).exp() * complete
    return raised / raised.sum(-1, keepdim=True).clamp(min=1)  # the highest alone is 1


def choose_blocks(weights: Tensor, own: Tensor, groups: int, top_k: int) -> Tensor:
    """Blocks of branch 1, `[B, Hkv, T, K]`, K at most `top_k`, -1 where there are fewer.

    `weights` `[B, Hq, T, n]` of branch 0; `own` `[B, T]`: the block that each query is in; `groups` is Hkv.
    """
    forced = forced_blocks(own, groups, top_k)
    if top_k <= 2 or weights.shape[-1] <= 1:
        return forced
    blocks = torch.arange(1, weights.shape[-1], device=own.device)
    importance = torch.unflatten(weights[..., 1:], 1, (groups, -1)).sum(2)
    best = best_blocks(importance.masked_fill(blocks >= own[:, None, :, None], -torch.inf), top_k - 2)
    return torch.cat((forced, torch.where(best < 0, -1, best + 1)), dim=-1)


def forced_blocks(own: Tensor, groups: int, top_k: int) -> Tensor:
    """The own block and, from ``top_k = 2`` on, block 0, `[B, Hkv, T, 1 or 2]`; -1 where the own is block 0."""
    both = torch.stack((own, torch.where(own > 0, 0, -1)), dim=-1)[..., :top_k]
    return both[:, None].expand(-1, groups, -1, -1)


def _choose(q: Tensor, key_means: Tensor, positions: Tensor, sizes: NsaSizes, scale: float) -> Tensor:
    """`choose_blocks` for q `[B, T, Hq, D]`, without the weights where they decide nothing."""
    own, groups = positions // sizes.block_size, key_means.shape[2]
    if sizes.top_k <= 2:
        return forced_blocks(own, groups, sizes.top_k)
    return choose_blocks(mean_weights(q, key_means, positions, sizes.block_size, scale), own, groups, sizes.top_k)


def _attend_means(
    q: Tensor, key_means: Tensor, value_means: Tensor, positions: Tensor, block_size: int, scale: float
) -> Tensor:
    """Branch 0, `[B, T, Hq, D]`."""
    if not key_means.shape[1]:
        return q.new_zeros(*q.shape[:3], value_means.shape[3])
    some = positions >= block_size - 1
    visible = _complete(key_means, positions, block_size)
    visible[..., 0] |= ~some  # a softmax must see something: what it makes of this is dropped
    out = masked_attention(q, key_means, value_means, additive_mask(visible, q.dtype), scale)
    return torch.where(some[..., None, None], out, 0)


def _complete(means: Tensor, positions: Tensor, block_size: int) -> Tensor:
    """Mask `[B, T, n]` of the blocks whose last token is at `positions` `[B, T]` or before."""
    ends = torch.arange(1, means.shape[1] + 1, device=positions.device) * block_size - 1
    return ends <= positions[..., None]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def products(q: Tensor, k: Tensor) -> Tensor:
    """q k^T `[B, Hq, T, S]` of q `[B, T, Hq, D]` and k `[B, S, Hkv, D]`."""
    rows = torch.unflatten(q.transpose(1, 2), 1, (k.shape[2], -1)).flatten(2, 3)  # [B, Hkv, group * T, D]
    return torch.unflatten(rows @ k.permute(0, 2, 3, 1), 2, (-1, q.shape[1])).flatten(1, 2)


def weighted(weights: Tensor, v: Tensor) -> Tensor:
    """Sums `[B, T, Hq, D]` of v `[B, S, Hkv, D]` by `weights` `[B, Hq, T, S]`."""
    rows = torch.unflatten(weights.to(v.dtype), 1, (v.shape[2], -1)).flatten(2, 3) @ v.transpose(1, 2)
    return torch.unflatten(rows, 2, (-1, weights.shape[2])).flatten(1, 2).transpose(1, 2)
