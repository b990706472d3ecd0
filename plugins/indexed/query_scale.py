"""QueryScale: queries grow with the logarithm of their place, each head as it learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QueryScale(nn.Module):
    """Heads times s log(t + 1) + b at position t, s and b learned for each; 1 as it begins.

    Mistral-Large-4, as `transformers` 5.24 has it.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.zeros(heads)), nn.Parameter(torch.ones(heads))

    def forward(self, positions: Tensor, heads: Tensor) -> Tensor:
        """`heads` `[B, T, H, D]` at `positions` `[B, T]`."""
        wide = torch.promote_types(self.scale.dtype, torch.float32)
        by = self.scale.to(wide) * (positions[..., None] + 1).to(wide).log() + self.bias.to(wide)
        return heads * by[..., None].to(heads.dtype)
