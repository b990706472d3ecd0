"""Token shift: what each projection reads is mixed of a token and the one before it, as both say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .features import SHIFT_RANK as RANK


class TokenShift(nn.Module):
    """ddlerp (RWKV-6, arXiv 2404.05892, section 4): x_t + (x_(t-1) - x_t) (mu_r + B_r tanh(A_r z)) for each of
    ``roles``, with z = x_t + (x_(t-1) - x_t) mu. All mu start at 1 - (i / D)^(1 - l / L), channel i of layer l of L."""

    def __init__(self, d_model: int, roles: int, depth_share: float) -> None:
        super().__init__()
        self.roles = roles
        start = 1 - (torch.arange(d_model) / d_model) ** (1 - depth_share)
        self.mix = nn.Parameter(start.clone())
        self.mixes = nn.Parameter(start.repeat(roles, 1))
        self.down = nn.Linear(d_model, roles * RANK, bias=False)
        self.up = nn.Parameter(0.01 * torch.randn(roles, RANK, d_model))

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """`x` and the tokens before, `[B, T, D]`, to what each role reads, `[R, B, T, D]`."""
        change = earlier - x
        low = torch.unflatten(self.down(torch.addcmul(x, change, self.mix)).tanh(), -1, (self.roles, RANK))
        low = low.flatten(0, 1).transpose(0, 1)  # [R, B T, RANK]
        decided = torch.unflatten(low @ self.up.to(low.dtype), 1, x.shape[:2])
        return torch.addcmul(x, change, decided + self.mixes[:, None, None].to(x.dtype))


def token_before(x: Tensor, last: Tensor | None, places: Tensor | None) -> Tensor:
    """Of each token of `x` `[B, T, D]` the one before it: first the ``last`` seen `[B, 1, D]`, zeros without one, and
    at place 0 of packed sequences too."""
    first = torch.zeros_like(x[:, :1]) if last is None else last.to(x.dtype)
    moved = torch.cat((first, x), dim=1)[:, : x.shape[1]]
    return moved if places is None else moved * (places > 0)[..., None]
