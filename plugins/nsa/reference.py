"""Native sparse attention by the masks of all pairs, in float32 at least: slow, and what other forms must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from .sizes import NsaSizes


def reference(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *, sizes: NsaSizes, scale: float) -> Tensor:
    """q `[B, T, Hq, D]`, k, v `[B, S, Hkv, D]`, gates `[B, T, Hq, 3]` to `[B, T, Hq, D]`; see `nsa_attention`."""
    block_size, top_k = sizes.block_size, sizes.top_k
    groups, queries, keys = k.shape[2], q.shape[1], k.shape[1]
    wide = torch.promote_types(q.dtype, torch.float32)
    qw, (kw, vw) = q.to(wide), (x.to(wide).repeat_interleave(q.shape[2] // groups, 2) for x in (k, v))
    at = torch.arange(keys - queries, keys, device=q.device)[:, None]
    token = torch.arange(keys, device=q.device)
    own, block_of, blocks = at // block_size, token // block_size, torch.arange(-(-keys // block_size), device=q.device)

    membership = (block_of == blocks[: keys // block_size, None]).to(wide) / block_size  # [n, S]
    key_means, value_means = (torch.einsum("ns,bshd->bnhd", membership, x) for x in (kw, vw))
    complete = (blocks[: keys // block_size] + 1) * block_size <= at + 1
    weights = _weights(qw, key_means, complete, scale)
    compressed = torch.einsum("bhtn,bnhd->bthd", weights, value_means)

    importance = torch.nn.functional.pad(
        torch.unflatten(weights, 1, (groups, -1)).sum(2), (0, len(blocks) - len(membership))
    )
    forced = (blocks == own) | ((blocks == 0) & (top_k > 1))
    importance = importance.masked_fill(forced, torch.inf).masked_fill(blocks > own, -torch.inf)
    rank = importance.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    seen = (((rank < top_k) | forced) & (blocks <= own)) if top_k > 1 else forced.expand_as(rank)
    chosen = seen.repeat_interleave(q.shape[2] // groups, 1)[..., block_of] & (token <= at)
    selected = torch.einsum("bhts,bshd->bthd", _weights(qw, kw, chosen, scale), vw)

    near = (token <= at) & (token > at - sizes.window)
    local = torch.einsum("bhts,bshd->bthd", _weights(qw, kw, near, scale), vw)
    return torch.einsum("bthi,ibthd->bthd", gates.to(wide), torch.stack((compressed, selected, local))).to(q.dtype)


def _weights(q: Tensor, k: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Softmax `[B, H, T, S]` over the visible keys, zeros where there are none."""
    scores = torch.einsum("bthd,bshd->bhts", q, k) * scale
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1) * visible
