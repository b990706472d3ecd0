"""GroupedLinear: a linear map of each group of channels by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """Each of ``groups`` equal parts of the input by a matrix of its own, side by side: `[..., inputs]` to
    `[..., outputs]`. The first half of DeepSeek-V4's output projection, as `transformers` 5.24 has it."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, outputs // groups, inputs // groups))
        bound = (groups / inputs) ** 0.5  # as nn.Linear draws one of so many inputs
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` to `[..., outputs]`."""
        parts = torch.unflatten(x, -1, (len(self.weight), -1))
        return torch.einsum("...gi,goi->...go", parts, self.weight.to(x.dtype)).flatten(-2)
