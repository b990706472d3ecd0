"""Native sparse attention as its paper has it, in PyTorch: branches with keys and values of their own, blocks that
overlap where they are compressed, and others that are chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.band import band_attention, window_mask
from archsearch.ops.block_cache import block_rows, gather_rows, needed_rows, rows_attention
from archsearch.ops.block_sparse import additive_mask, attend_chosen, best_blocks, visible_keys
from archsearch.ops.impl import choose_impl
from archsearch.ops.softmax import explicit_attention, masked_attention

from .ops import CHOICE_ELEMENTS, products, weighted
from .sizes import NsaSizes
from .triton.table import TABLE

WHY = "keys of branches apart, networks that compress and blocks that overlap, which no kernel here takes, in PyTorch"


def explicit() -> bool:
    """Whether explicit products are asked for. Raises `OptionsError`, `KernelUnavailableError`."""
    return choose_impl(TABLE.op, "auto", why=WHY) == "reference"


def compressed_and_selected(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, *, sizes: NsaSizes, scale: float
) -> tuple[Tensor, Tensor]:
    """The first two branches, each `[B, T, Hq, D]`, of the last T of S tokens.

    q `[B, T, Hq, D]`; k, v `[B, S, Hkv, D]` of the selection; `keys` and `values` `[B, n, Hkv, D]` of the compressed
    blocks that are complete for the last token.
    """
    tokens, exact = k.shape[1], explicit()
    positions = torch.arange(tokens - q.shape[1], tokens, device=q.device).expand(q.shape[0], -1)
    with torch.no_grad():
        count = max(1, CHOICE_ELEMENTS // (q.shape[0] * q.shape[2] * max(1, keys.shape[1])))
        pieces = zip(torch.split(q, count, 1), torch.split(positions, count, 1), strict=True)
        chosen = torch.cat([choose(x, keys, at, tokens, sizes, scale) for x, at in pieces], dim=2)
    if exact:
        visible = visible_keys(chosen, positions, tokens, sizes.block_size).repeat_interleave(
            q.shape[2] // k.shape[2], 1
        )
        selected = _explicitly(q, k, v, visible, scale)
    else:
        selected = attend_chosen(q, k, v, chosen, positions, block_size=sizes.block_size, scale=scale)
    return _over_compressed(q, keys, values, positions, sizes, scale, exact), selected


def near(q: Tensor, k: Tensor, v: Tensor, *, window: int, scale: float) -> Tensor:
    """The third branch `[B, T, Hq, D]` of the last T of S tokens."""
    if explicit():
        index = torch.arange(k.shape[1], device=q.device)
        return explicit_attention(
            q, k, v, window_mask(index[k.shape[1] - q.shape[1] :], index, window=window, sinks=0), scale
        )
    return band_attention(q, k, v, window=window, scale=scale)


def one_token(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, *, sizes: NsaSizes, scale: float
) -> tuple[Tensor, Tensor]:
    """The first two branches, each `[B, Hq, D]`, of the last of each sequence's `lengths` `[B]` tokens: of k and v
    `[B, S, Hkv, D]` the chosen rows alone are read, of `keys` and `values` `[B, n, Hkv, D]` the complete ones."""
    positions = lengths[:, None] - 1
    complete = ((lengths - sizes.of) // sizes.every + 1).clamp(min=0)
    held = (torch.arange(int(complete.max()), device=q.device) < complete[:, None])[..., None, None]
    keys, values = (torch.where(held, x[:, : held.shape[1]], 0).to(q.dtype) for x in (keys, values))
    weights = compression_weights(q[:, None], keys, positions, sizes, scale)
    chosen = chosen_blocks(weights, positions, k.shape[2], int(lengths.max()), sizes)[:, :, 0]
    rows, seen = needed_rows(*block_rows(chosen, positions[:, 0], sizes.block_size))
    selected = rows_attention(q, *gather_rows(k, v, rows, q.dtype), seen, scale)
    return weighted(weights, values)[:, 0], selected


def choose(q: Tensor, keys: Tensor, positions: Tensor, tokens: int, sizes: NsaSizes, scale: float) -> Tensor:
    """Blocks `[B, Hkv, T, K]` of the selection for q `[B, T, Hq, D]` at `positions` `[B, T]` of at most `tokens`."""
    weights = compression_weights(q, keys, positions, sizes, scale)
    return chosen_blocks(weights, positions, keys.shape[2], tokens, sizes)


def compression_weights(q: Tensor, keys: Tensor, positions: Tensor, sizes: NsaSizes, scale: float) -> Tensor:
    """Softmax `[B, Hq, T, n]` over the compressed blocks that are complete, in float32 at least; zeros where none
    is."""
    wide = torch.promote_types(q.dtype, torch.float32)
    complete = _complete(keys, positions, sizes)[:, None]
    scores = (products(q.to(wide), keys.to(wide)) * scale).masked_fill(~complete, torch.finfo(wide).min)
    return scores.softmax(-1) * complete if scores.shape[-1] else scores


def importance(weights: Tensor, groups: int, blocks: int, sizes: NsaSizes) -> Tensor:
    """Of each of the first `blocks` blocks that may be chosen, `[B, groups, T, blocks]`: `weights` `[B, Hq, T, n]` of
    what was compressed, summed over the query heads of a key head and over every stride of the block, each with all
    compressed blocks that hold it (arXiv 2502.11089, equations 9 and 10)."""
    shared = torch.unflatten(weights, 1, (groups, -1)).sum(2)
    each, over = sizes.block_size // sizes.every, sizes.of // sizes.every
    strides = blocks * each
    padded = F.pad(shared, (over - 1, max(0, strides - shared.shape[-1])))[..., : strides + over - 1]
    return torch.unflatten(padded.unfold(-1, over, 1).sum(-1), -1, (blocks, each)).sum(-1)


def chosen_blocks(weights: Tensor, positions: Tensor, groups: int, tokens: int, sizes: NsaSizes) -> Tensor:
    """`[B, groups, T, K]`, -1 for none: the ``local`` last blocks, block 0 and, of those between, the most
    important, ``top_k`` in all where there are so many; of equal ones the earliest."""
    own, count = positions // sizes.block_size, -(-tokens // sizes.block_size)
    back = own[..., None] - torch.arange(sizes.local, device=own.device)
    start = torch.where(back[..., -1:] > 0, 0, -1)[..., : sizes.top_k - sizes.local]
    forced = torch.cat((back.clamp(min=-1), start), dim=-1)[:, None].expand(-1, groups, -1, -1)
    rest = sizes.top_k - sizes.local - 1
    if rest <= 0 or count <= 1:
        return forced
    blocks = torch.arange(count, device=own.device)
    between = (blocks > 0) & (blocks < back[..., -1:])
    scores = importance(weights, groups, count, sizes).masked_fill(~between[:, None], -torch.inf)
    return torch.cat((forced, best_blocks(scores, rest)), dim=-1)


def _complete(keys: Tensor, positions: Tensor, sizes: NsaSizes) -> Tensor:
    """Mask `[B, T, n]` of what is compressed of tokens up to `positions` `[B, T]` alone."""
    ends = torch.arange(keys.shape[1], device=positions.device) * sizes.every + sizes.of - 1
    return ends <= positions[..., None]


def _over_compressed(
    q: Tensor, keys: Tensor, values: Tensor, positions: Tensor, sizes: NsaSizes, scale: float, exact: bool
) -> Tensor:
    """The first branch; zeros for tokens that nothing is complete for."""
    if not keys.shape[1]:
        return q.new_zeros(q.shape) + 0 * (keys.sum() + values.sum())
    if exact:
        weights = compression_weights(q, keys, positions, sizes, scale)
        return weighted(weights.to(q.dtype), values)
    some = positions >= sizes.of - 1
    visible = _complete(keys, positions, sizes)
    visible[..., 0] |= ~some  # a softmax must see something: what it makes of this is dropped
    out = masked_attention(q, keys, values, additive_mask(visible, q.dtype), scale)
    return torch.where(some[..., None, None], out, 0)


def _explicitly(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Attention of each query head to the keys that it sees, `visible` `[B, Hq, T, S]`."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (products(q.to(wide), k.to(wide)) * scale).masked_fill(~visible, -torch.inf)
    return weighted(scores.softmax(-1), v.to(wide)).to(q.dtype)
