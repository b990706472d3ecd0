"""Token shift: projections of a token mixed with the one before it, by learned shares a channel and kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.ops.short_conv import next_tail


class StaticShift(nn.Module):
    """x W with x_t + mu (x_(t-1) - x_t) for x, mu of each of the ``kinds`` of features (RWKV-7, arXiv 2503.14456,
    section 4, "token shift"); a sequence starts after zeros."""

    def __init__(self, d_model: int, kinds: Sequence[int]) -> None:
        super().__init__()
        self.kinds = [kind for kind in kinds if kind]
        places = torch.linspace(0, 1, d_model)  # as in its code: from all of the token before to little of it
        self.mu = nn.Parameter((1 - places.pow(0.5)).repeat(len(self.kinds), 1))

    def forward(self, x: Tensor, weight: Tensor, tail: Tensor | None, places: Tensor | None) -> Tensor:
        """`x` `[B, T, D]` through `weight` `[F, D]`: `[B, T, F]`. ``tail`` `[B, 1, D]` is the token before `x`, and
        ``places`` `[B, T]`, of packed sequences, the tokens' places in their own."""
        if tail is None:
            before = F.pad(x, (0, 0, 1, 0))[:, : x.shape[1]]
        else:
            before = torch.cat((tail.to(x.dtype), x), 1)[:, : x.shape[1]]
        if places is not None:
            before = before * (places > 0)[..., None]
        away = before - x
        parts = zip(self.mu.unbind(), weight.split(self.kinds), strict=True)
        return torch.cat([F.linear(x + away * mu.to(x.dtype), rows) for mu, rows in parts], -1)

    @staticmethod
    def after(tail: Tensor, x: Tensor) -> Tensor:
        """The token before those after `x`, `[B, 1, D]`."""
        return next_tail(tail, x)
