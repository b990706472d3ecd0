"""The layer of attention over block means."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

from . import BLOCK


class BlockMeans(AttentionMixer):
    """The cache holds token t at row ``t % 4`` of the open block, the mean of block i at row i."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart("field-pad4", _whole)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        return self._kept(k, v, state)[0]

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, keys, values = self._kept(k, v, state)
        closed, most = state.lengths // BLOCK, state.most // BLOCK
        means_k, means_v = (state.tensors[f"mean_{name}"][:, :most].to(q.dtype) for name in "kv")
        place = (state.lengths % BLOCK)[:, None] + torch.arange(q.shape[1], device=q.device)
        seen = (torch.arange(most, device=q.device) < closed[:, None])[:, None].expand(-1, q.shape[1], -1)
        seen = torch.cat((seen, _earlier_blocks(place, keys.shape[1])), -1)
        means = torch.cat((means_k, _means(keys)), 1), torch.cat((means_v, _means(values)), 1)
        return _attention(q, *means, seen, keys, values, place), tensors

    def _kept(self, k: Tensor, v: Tensor, state: MixerState) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The state's tensors with T more tokens; and, beginning with each open block, their keys and values
        `[B, 4 n, Hkv, D]`, zero where no token is."""
        tensors, rows = dict(state.tensors), []
        opened, count = state.lengths % BLOCK, k.shape[1]
        for name, new in (("k", k), ("v", v)):
            rows.append(_laid_out(state.tensors[f"open_{name}"], new, opened))
            last = token_indices(state, count)[:, -BLOCK:] % BLOCK
            tensors[f"open_{name}"] = write_rows(tensors[f"open_{name}"], last, new[:, -BLOCK:])
            tensors[f"mean_{name}"] = self._closed(tensors[f"mean_{name}"], _means(rows[-1]), state, count)
        return tensors, rows[0], rows[1]

    def _closed(self, cache: Tensor, means: Tensor, state: MixerState, count: int) -> Tensor:
        """The cache of means with those of the blocks that `count` more tokens complete."""
        first = state.lengths // BLOCK
        block = first[:, None] + torch.arange(-(-count // BLOCK), device=cache.device)  # [B, n]
        complete = (block + 1) * BLOCK <= (state.lengths + count)[:, None]
        old = cache[torch.arange(len(cache), device=cache.device)[:, None], block]
        new = means[:, : block.shape[1]].to(cache.dtype)
        return write_rows(cache, block, torch.where(complete[..., None, None], new, old))


def _laid_out(open_rows: Tensor, new: Tensor, opened: Tensor) -> Tensor:
    """`[B, 4 n, Hkv, D]`: of each sequence the `opened` `[B]` rows of its open block, then `new` `[B, T, Hkv, D]`."""
    count = new.shape[1]
    places = -(-(BLOCK - 1 + count) // BLOCK) * BLOCK
    place = torch.arange(open_rows.shape[1], device=new.device)
    kept = torch.where((place < opened[:, None])[..., None, None], open_rows.to(new.dtype), 0)
    rows = opened[:, None] + torch.arange(count, device=new.device)
    return write_rows(F.pad(kept, (0, 0, 0, 0, 0, places - kept.shape[1])), rows, new)


def _means(rows: Tensor) -> Tensor:
    """Of each four of `rows` `[B, 4 n, H, D]`, `[B, n, H, D]`."""
    return rows.unflatten(1, (-1, BLOCK)).mean(2)


def _earlier_blocks(place: Tensor, places: int) -> Tensor:
    """`[B, T, n]`: the blocks before that of a query at `place` `[B, T]`, of so many places."""
    return torch.arange(places // BLOCK, device=place.device) < (place // BLOCK)[..., None]


def _attention(
    q: Tensor, means_k: Tensor, means_v: Tensor, seen: Tensor, keys: Tensor, values: Tensor, place: Tensor
) -> Tensor:
    """q `[B, T, Hq, D]` over the means `[B, n, Hkv, D]` that are `seen` `[B, T, n]`, and over keys and values
    `[B, 4 m, Hkv, D]` of the block of its `place` `[B, T]` in them, up to it."""
    sequence = torch.arange(len(q), device=q.device)[:, None]
    near_k, near_v = (rows.unflatten(1, (-1, BLOCK))[sequence, place // BLOCK] for rows in (keys, values))
    q = q.unflatten(2, (keys.shape[2], -1)) * q.shape[-1] ** -0.5
    near = torch.arange(BLOCK, device=q.device) <= (place % BLOCK)[..., None]  # [B, T, 4]
    scores = torch.cat(
        (
            torch.einsum("bthgd,bshd->bhgts", q, means_k).masked_fill(~seen[:, None, None], -torch.inf),
            torch.einsum("bthgd,btshd->bhgts", q, near_k).masked_fill(~near[:, None, None], -torch.inf),
        ),
        -1,
    )
    far_w, near_w = scores.softmax(-1).split([means_k.shape[1], BLOCK], -1)
    far = torch.einsum("bhgts,bshd->bthgd", far_w, means_v)
    return (far + torch.einsum("bhgts,btshd->bthgd", near_w, near_v)).flatten(2, 3)


def _whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A whole sequence, padded to a multiple of four."""
    tokens = q.shape[1]
    keys, values = (F.pad(rows, (0, 0, 0, 0, 0, -tokens % BLOCK)) for rows in (k, v))
    place = torch.arange(tokens, device=q.device).expand(len(q), -1)
    seen = _earlier_blocks(place, keys.shape[1])
    return _attention(q, _means(keys), _means(values), seen, keys, values, place)
