"""The pattern: which blocks of keys each block of queries sees. It follows from the options alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .options import StaticOptions

_WORD = 2**32 - 1


def pattern(options: StaticOptions, blocks: Tensor, heads: int, *, layer: int = 0) -> Tensor:
    """Blocks `[*shape, heads, K]` that queries of the `blocks` `[*shape]` int64 see, no block twice, -1 for none.

    Of each query block a: itself; a - d i for i up to ``local``; the ``first``; and of what lies between those and
    the window one block of each of ``random`` equal parts. K is the sum of their numbers.
    """
    own = blocks[..., None, None].expand(*blocks.shape, heads, 1)
    device, first = blocks.device, options.first
    steps = torch.arange(1, options.local + 1, device=device) * options.dilation
    window = own - steps
    start = torch.arange(first, device=device).expand(*own.shape[:-1], first)
    parts = [own, window.masked_fill(window < first, -1), start.masked_fill(start >= own, -1)]
    if options.random:
        parts.append(_drawn(options, own, layer))
    return torch.cat(parts, dim=-1)


def _drawn(options: StaticOptions, own: Tensor, layer: int) -> Tensor:
    """One block of each part of what lies before the window, `[..., heads, random]`; -1 of empty parts."""
    part = torch.arange(options.random, device=own.device)
    head = torch.arange(own.shape[-2], device=own.device)[:, None]
    there = (own - options.reach - options.first).clamp(min=0)
    low, high = there * part // options.random, there * (part + 1) // options.random
    mixed = _hash(_hash(_hash(own + (options.seed << 24)) + part) + head + (layer << 16))
    picked = options.first + low + mixed % (high - low).clamp(min=1)
    return picked.masked_fill(high == low, -1)


def _hash(x: Tensor) -> Tensor:
    """Numbers below 2^32 of int64 ones, spread evenly: multiplications and shifts that no bit gets lost in."""
    x = x & _WORD
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = ((x ^ (x >> shift)) * factor) & _WORD
    return x ^ (x >> 15)
