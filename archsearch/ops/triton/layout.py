"""What is laid out on the device before block-sparse kernels run, without waiting for it: blocks, ranges, pairs.

Tokens of all sequences stand end to end: queries `[B * T, Hq, D]`, keys `[B * S, Hkv, D]`, blocks from the start of
each sequence on. Sizes follow from shapes alone: of a packed batch as many blocks as there can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.ops.laid_out import LaidOut


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Where blocks and queries stand, int32: `starts` and `stops` `[n]` of the keys of each block (alike where a packed
    batch has no such block); of each query `[B * T]` its own key `at`, the `begin` of its sequence's keys, its place in
    the sequence, its `own` block and the `first` of its sequence."""

    size: int
    starts: Tensor
    stops: Tensor
    at: Tensor
    begin: Tensor
    own: Tensor
    first: Tensor

    @property
    def count(self) -> int:
        """Blocks there may be."""
        return self.starts.shape[0]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Where sequences and queries stand, int64: `begins` and `ends` `[N]` of the keys of each sequence; of each query
    `[B * T]` its own key `at` and the number of its `sequence`."""

    begins: Tensor
    ends: Tensor
    at: Tensor
    sequence: Tensor


def lay_sequences(laid: LaidOut) -> Sequences:
    """Where the sequences of q `[B, T, ...]` and k `[B, S, ...]` stand, laid out as they are."""
    (batch, count), keys, device = laid.q.shape[:2], laid.k.shape[1], laid.q.device
    tokens = torch.arange(batch * count, device=device)
    if laid.cu_seqlens is not None:
        bounds = laid.cu_seqlens.to(device, torch.int64, non_blocking=True)
        sequence = torch.searchsorted(bounds[1:], tokens, right=True).clamp_(max=len(bounds) - 2)
        return Sequences(begins=bounds[:-1], ends=bounds[1:], at=tokens, sequence=sequence)
    begins = torch.arange(batch, device=device) * keys
    ends = begins + (keys if laid.lengths is None else laid.lengths.to(device, torch.int64, non_blocking=True))
    sequence = tokens // max(count, 1)
    at = ends[sequence] - count + tokens % max(count, 1)
    return Sequences(begins=begins, ends=ends, at=at, sequence=sequence)


def lay_blocks(laid: LaidOut, size: int) -> Blocks:
    """Blocks of `size` keys for the queries of `lay_sequences`."""
    places = lay_sequences(laid)
    after = ((places.ends - places.begins + size - 1) // size).cumsum(0)  # the block after each sequence's last
    firsts = torch.nn.functional.pad(after[:-1], (1, 0))
    begin, first = places.begins[places.sequence], firsts[places.sequence]
    numbers = torch.arange(most_blocks(laid, size), device=places.at.device)
    holder = torch.searchsorted(after, numbers, right=True)
    inside = holder < len(after)
    holder = holder.clamp_(max=len(after) - 1)
    stops = places.ends[holder]
    starts = torch.where(inside, places.begins[holder] + (numbers - firsts[holder]) * size, stops)
    own = first + (places.at - begin) // size
    narrow = [x.to(torch.int32) for x in (starts, torch.minimum(starts + size, stops), places.at, begin, own, first)]
    return Blocks(size=size, **dict(zip(("starts", "stops", "at", "begin", "own", "first"), narrow, strict=True)))


def most_blocks(laid: LaidOut, size: int) -> int:
    """As many blocks of `size` keys as there can be, from shapes alone."""
    batch, keys = laid.k.shape[:2]
    if laid.cu_seqlens is None:
        return batch * -(-keys // size)
    return keys // size + laid.cu_seqlens.shape[0] - 1


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a query and a block that it chose, sorted by lane (`chosen`): `order` `[pairs]` and `bounds`
    `[lanes + 1]`, int32; each of the `choosers` of a token chose `slots` blocks at most."""

    order: Tensor
    bounds: Tensor
    choosers: int
    slots: int

    @property
    def lanes(self) -> int:
        """Key heads times blocks."""
        return self.bounds.shape[0] - 1

    def tiles(self, size: int) -> tuple[Tensor, Tensor]:
        """Lane and first place of each tile of `size` pairs, as many as there can be; the lane is past the last where
        there is no such tile."""
        counts = (self.bounds[1:] - self.bounds[:-1] + size - 1) // size
        ends = counts.cumsum(0)
        numbers = torch.arange(self.order.shape[0] // size + self.lanes, device=ends.device)
        lane = torch.searchsorted(ends, numbers, right=True)
        safe = lane.clamp(max=self.lanes - 1)
        first = self.bounds[safe] + (numbers - ends[safe] + counts[safe]) * size
        return lane.to(torch.int32), first.to(torch.int32)


def sort_pairs(chosen: Tensor, key_heads: int, blocks: int) -> Pairs:
    """Pairs of the choices `[B * T, Hc, slots]`, -1 for none."""
    choosers, slots = chosen.shape[1:]
    head = torch.arange(choosers, device=chosen.device, dtype=torch.int32) * key_heads // choosers
    lanes = key_heads * blocks
    lane = torch.where(chosen < 0, lanes, chosen + head[:, None] * blocks).to(torch.int32).flatten()
    ordered, order = lane.sort(stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(lanes + 1, device=chosen.device, dtype=torch.int32))
    return Pairs(order=order.to(torch.int32), bounds=bounds.to(torch.int32), choosers=choosers, slots=slots)
