"""What is laid out on the device before block-sparse kernels run, without waiting for it: blocks, ranges, pairs.

Tokens of all sequences stand end to end: queries `[B * T, Hq, D]`, keys `[B * S, Hkv, D]`, blocks from the start of
each sequence on. Sizes follow from shapes alone: of a packed batch as many blocks as there can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def lay_blocks(
    queries: tuple[int, int], keys: int, size: int, cu_seqlens: Tensor | None, device: torch.device
) -> Blocks:
    """Blocks of `size` keys for `queries` = (B, T), the last T of `keys` = S tokens of each sequence."""
    batch, count = queries
    tokens = torch.arange(batch * count, device=device)
    if cu_seqlens is None:
        bounds, blocks = torch.arange(batch + 1, device=device) * keys, batch * -(-keys // size)
        at = tokens // max(count, 1) * keys + tokens % max(count, 1) + keys - count
    else:
        bounds = cu_seqlens.to(device, torch.int64, non_blocking=True)
        blocks, at = keys // size + len(bounds) - 1, tokens
    ends = ((bounds[1:] - bounds[:-1] + size - 1) // size).cumsum(0)  # the block after each sequence's last
    firsts = torch.nn.functional.pad(ends[:-1], (1, 0))
    sequence = torch.searchsorted(bounds[1:], at, right=True).clamp_(max=len(ends) - 1)
    begin, first = bounds[sequence], firsts[sequence]
    numbers = torch.arange(blocks, device=device)
    holder = torch.searchsorted(ends, numbers, right=True)
    inside = holder < len(ends)
    holder = holder.clamp_(max=len(ends) - 1)
    stops = bounds[1:][holder]
    starts = torch.where(inside, bounds[holder] + (numbers - firsts[holder]) * size, stops)
    narrow = [
        x.to(torch.int32)
        for x in (starts, torch.minimum(starts + size, stops), at, begin, first + (at - begin) // size, first)
    ]
    return Blocks(size=size, **dict(zip(("starts", "stops", "at", "begin", "own", "first"), narrow, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a query and a block that it chose, sorted by lane (`kernels.chosen`): `order` `[pairs]` and `bounds`
    `[lanes + 1]`, int32."""

    order: Tensor
    bounds: Tensor

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
    choosers = chosen.shape[1]
    head = torch.arange(choosers, device=chosen.device, dtype=torch.int32) * key_heads // choosers
    lanes = key_heads * blocks
    lane = torch.where(chosen < 0, lanes, chosen + head[:, None] * blocks).to(torch.int32).flatten()
    ordered, order = lane.sort(stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(lanes + 1, device=chosen.device, dtype=torch.int32))
    return Pairs(order=order.to(torch.int32), bounds=bounds.to(torch.int32))
