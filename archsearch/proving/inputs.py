"""Inputs: signed numbers for softmax attention, equal for equal sizes, drawn on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def qkv(
    tokens: int, dim: int, *, heads: int = 2, key_heads: int = 1, keys: int = 0, batch: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """q `[B, T, H, D]` and k, v `[B, S, G, D]`; as many keys as tokens where `keys` is 0."""
    draw = torch.Generator().manual_seed(1000 * tokens + seed)
    count = keys or tokens
    sizes = {"q": (tokens, heads), "k": (count, key_heads), "v": (count, key_heads)}
    return {name: torch.randn(batch, *size, dim, generator=draw) for name, size in sizes.items()}


def by_blocks(k: Tensor, block_size: int, seed: int = 0) -> Tensor:
    """Keys `[B, S, H, D]` of which each block lies about a point of its own, so that rounding moves few choices."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(1, -(-k.shape[1] // block_size), 1, k.shape[3], generator=draw)
    return 0.3 * k + centres.repeat_interleave(block_size, 1)[:, : k.shape[1]]


def after_filled(x: Tensor, filled: Sequence[int], value: float = torch.nan) -> Tensor:
    """`x` `[B, S, ...]` with `value` in the rows after the first `filled` of each sequence."""
    rows = torch.arange(x.shape[1]) >= torch.tensor(filled)[:, None]
    return x.masked_fill(rows.view(*rows.shape, *[1] * (x.dim() - 2)), value)


def cached(drawn: dict[str, Tensor], filled: Sequence[int]) -> dict[str, Tensor]:
    """q, k, v with NaN in the rows of k and v that hold no token, and the ``lengths`` of the sequences."""
    kept = {name: after_filled(drawn[name], filled) for name in ("k", "v")}
    return {**drawn, **kept, "lengths": torch.tensor(filled)}


def complete_means(x: Tensor, lengths: Sequence[int], block_size: int) -> Tensor:
    """Means `[B, ceil(S / block_size), H, D]` of the blocks of a cache `[B, S, H, D]`, NaN for what is not full."""
    means = torch.full((len(x), -(-x.shape[1] // block_size), *x.shape[2:]), torch.nan)
    for row, length in enumerate(lengths):
        count = length // block_size
        means[row, :count] = x[row, : count * block_size].unflatten(0, (count, block_size)).mean(1)
    return means
