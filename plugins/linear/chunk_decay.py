"""Decay within chunks: weighted products of pairs of tokens, and the decay of states from chunk to chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .channel_products import channel_products

_FORGOTTEN = -1e4
"""A log decay below which nothing is left even in float64, so that -inf may be given."""


@dataclass(frozen=True, kw_only=True)
class ChunkEnds:
    """Decays `[N, B, H, C, 1 or K]` between a token and the ends of its chunk, None where nothing decays: from the
    start up to and with the token, and from after the token to the end."""

    before: Tensor | None
    after: Tensor | None

    def from_start(self, x: Tensor) -> Tensor:
        """`x` `[N, B, H, C, K]` as it meets the state at the start of its chunk."""
        return x if self.before is None else x * self.before

    def to_end(self, x: Tensor) -> Tensor:
        """`x` `[N, B, H, C, K]` as it is left at the end of its chunk."""
        return x if self.after is None else x * self.after

    def left(self, count: int) -> Sequence[Tensor | None]:
        """What each of `count` chunks leaves of a state, `[B, H, 1 or K, 1]`, None for all of it."""
        return [None] * count if self.before is None else self.before[..., -1, :, None].unbind()


def decayed_products(
    rows: tuple[Tensor, ...], k: Tensor, log_decay: Tensor | None
) -> tuple[tuple[Tensor, ...], ChunkEnds]:
    """P(row, k) `[N, B, H, C, C]` of each of `rows`, `[N, B, H, C, K]` as `k` is, and the decays at the ends.

    ``log_decay`` is `[N, B or 1, H, C, 1 or K]`, or None. The first product is zero above the diagonal; of the others
    only what is below the diagonal may be read.
    """
    if log_decay is None:
        first, *others = (row @ k.mT for row in rows)
        mask = _lower_ones(k.shape[-2], k.dtype, k.device)
        return (first * mask, *others), ChunkEnds(before=None, after=None)
    if log_decay.shape[-1] == 1:
        pairs, ends = _head_decay(log_decay[..., 0])
        return tuple((row @ k.mT) * pairs for row in rows), ends
    products, before, after = channel_products(rows, k, log_decay)
    return products, ChunkEnds(before=before.exp(), after=after.exp())


def _head_decay(log_decay: Tensor) -> tuple[Tensor, ChunkEnds]:
    """Decays of pairs `[..., C, C]` and at the ends, of log decays `[..., C]`.

    Sums over spans of tokens are products with constant zeros and ones: no two large sums are ever subtracted, so
    that gates of -1000 leave their neighbours exact.
    """
    gates = log_decay.clamp(min=_FORGOTTEN)
    size = gates.shape[-1]
    spans, above, ends = _span_masks(size, gates.dtype, gates.device)
    pairs = torch.addmm(above, gates.reshape(-1, size), spans).exp().view(*gates.shape, size)
    before, after = torch.split((gates @ ends).exp()[..., None], size, dim=-2)
    return pairs, ChunkEnds(before=before, after=after)


@lru_cache(maxsize=16)
def _lower_ones(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        return torch.ones(size, size, dtype=dtype, device=device).tril()


@lru_cache(maxsize=16)
def _span_masks(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Constants that gates `[..., C]` are multiplied with. ``spans`` `[C, C * C]` sums s = j+1..i for the pair
    (i, j), to which ``above`` `[C * C]` adds -inf for j > i; ``ends`` `[C, 2 C]` sums s <= i, then s > i."""
    with torch.inference_mode(False):
        lower = torch.ones(size, size, dtype=torch.bool, device=device).tril()  # [i, s]: s <= i
        spans = lower[:, None, :] & ~lower[None, :, :]  # [i, j, s]: j < s <= i
        above = torch.zeros(size, size, dtype=dtype, device=device).masked_fill(~lower, -torch.inf)
        ends = torch.cat([lower, ~lower])
        return spans.flatten(0, 1).to(dtype).mT.contiguous(), above.flatten(), ends.to(dtype).mT.contiguous()
