"""What the host may ask of a tensor without waiting for a device."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether the host may read a value of `x` at no cost: not from a card, nor inside `torch.compile`."""
    return not (x.is_cuda or torch.compiler.is_compiling())
