"""Compressor: one entry for each block of tokens, a sum of theirs that is gated by channel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.model.attention import normed
from archsearch.ops.completed import first_positions, touched, write_complete
from archsearch.ops.host import readable
from archsearch.ops.rings import in_order, written
from archsearch.ops.rotary import rotary_of

from .options import CompressedOptions


class Compressor(nn.Module):
    """Entry i = sum over the tokens s of block i, with an overlap of i - 1 too, of softmax_s(gate + bias) content.

    The softmax is of each channel by itself; the bias is of the token's place in its block; either block has
    projections and biases of its own. DeepSeek-V4, section 2.3, the equations of HCA and CSA. Entries are normed, and
    turned by the position of the first token of their block.
    """

    def __init__(self, d_model: int, width: int, options: CompressedOptions, *, norm: bool) -> None:
        super().__init__()
        self.width, self.size = width, options.block_size
        self.series, self.parts = options.series, options.parts
        self.project = nn.Linear(d_model, self.series * self.parts * width, bias=False)
        places = (self.series, self.size, width)
        self.bias = nn.Parameter(torch.zeros(places)) if self.parts == 2 else None
        self.norm = nn.RMSNorm(width, eps=1e-6) if norm else None
        self.rotary = rotary_of(width, options)

    def raw(self, x: Tensor) -> tuple[Tensor, ...]:
        """Contents and gates `[B, T, parts, width]` of x `[B, T, d_model]`, of each series."""
        made: Tensor = self.project(x).unflatten(-1, (self.series, self.parts, self.width))
        return tuple(made.unbind(2))

    def whole(self, raw: tuple[Tensor, ...], positions: Tensor) -> Tensor:
        """Entries `[B, T // block_size, width]` of whole sequences at `positions` `[B, T]`."""
        count = positions.shape[1] // self.size
        tokens = count * self.size
        blocks = [rows[:, :tokens].unflatten(1, (count, self.size)) for rows in raw]
        there = torch.ones(1, count, self.series * self.size, dtype=torch.bool, device=positions.device)
        if self.series == 2:
            blocks[1] = F.pad(blocks[1], (0, 0, 0, 0, 0, 0, 1, 0))[:, :count]
            there[:, :1, self.size :] = False
        return self.entries(torch.cat(blocks, dim=2), there, positions[:, : tokens : self.size])

    def extend(
        self, cache: Tensor, raw: tuple[Tensor, ...], rings: tuple[Tensor, ...], lengths: Tensor, places: Tensor
    ) -> Tensor:
        """The cache `[B, rows, width]` with the entries of the blocks that T new tokens complete, after `lengths` `[B]`
        others, of which `rings` keep the last; `places` as `block_positions` gives them."""
        count = raw[0].shape[1]
        blocks, complete = touched(lengths, count, self.size)
        if readable(complete) and not complete.any():
            return cache
        found, there = [], []
        for before, (new, ring) in enumerate(zip(raw, rings, strict=True)):
            tokens = ((blocks - before) * self.size)[..., None] + torch.arange(self.size, device=cache.device)
            rows = in_order(ring, new, lengths)
            place = tokens - lengths[:, None, None] + ring.shape[1]
            batch = torch.arange(len(cache), device=cache.device)[:, None, None]
            found.append(rows[batch, place.clamp(0, rows.shape[1] - 1)])
            there.append(tokens >= 0)
        new = self.entries(torch.cat(found, dim=2), torch.cat(there, dim=2), places[:, : blocks.shape[1]])
        return write_complete(cache, blocks, complete, new)

    def entries(self, rows: Tensor, there: Tensor, positions: Tensor) -> Tensor:
        """`[B, n, width]` of the rows `[B, n, S, parts, width]` of each block's tokens that are `there` `[B, n, S]`, at
        the `positions` `[B, n]` of its first."""
        made = rows[:, :, 0, 0] if self.bias is None else self._gated(rows, there, self.bias)
        even = made if self.norm is None else normed(self.norm, made)
        turned: Tensor = self.rotary(positions, even[:, :, None])[:, :, 0]
        return turned

    def _gated(self, rows: Tensor, there: Tensor, bias: Tensor) -> Tensor:
        content, gate = rows.unbind(3)
        wide = torch.promote_types(gate.dtype, torch.float32)
        logits = gate.to(wide) + bias.to(wide).flatten(0, 1)
        if self.series == 2:
            logits = logits.masked_fill(~there[..., None], -torch.inf)
        return (logits.softmax(2).to(content.dtype) * content).sum(2)


def block_positions(place: Tensor | None, positions: Tensor, lengths: Tensor, block_size: int) -> Tensor:
    """Positions `[B, m + 1]` of the first tokens of the blocks that new tokens at `positions` `[B, T]` touch; `place`
    `[B, 1, 1]` is that of a block that was begun before, None where no entry is turned by it."""
    begun = positions.new_zeros(len(positions), 1) if place is None else place[:, :, 0]
    return first_positions(begun, positions, lengths, block_size)


def last_place(places: Tensor, lengths: Tensor, count: int, block_size: int) -> Tensor:
    """Of `places` that of the block that the last of `count` tokens is in, `[B, 1, 1]`."""
    index = (lengths % block_size + count - 1) // block_size
    return places.gather(1, index[:, None])[..., None]


def kept_rows(rings: tuple[Tensor, ...], raw: tuple[Tensor, ...], lengths: Tensor) -> list[Tensor]:
    """The rings of each series with the new tokens' rows."""
    return [written(ring, new, lengths) for ring, new in zip(rings, raw, strict=True)]
