"""Static token shift: what each projection reads is mixed of a token and the one before it, by learned shares."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StaticShift(nn.Module):
    """x_t + (x_(t-1) - x_t) mu_r for each of ``roles`` (RWKV-7, arXiv 2503.14456, section 4). All mu start at
    1 - sqrt(i / (D - 1)), i the channel."""

    def __init__(self, d_model: int, roles: int) -> None:
        super().__init__()
        self.mu = nn.Parameter((1 - torch.linspace(0, 1, d_model).sqrt()).repeat(roles, 1))

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """`x` and the tokens before, `[B, T, D]`, to what each role reads, `[R, B, T, D]`."""
        return torch.addcmul(x, earlier - x, self.mu[:, None, None].to(x.dtype))
