"""What the host may ask of a tensor without waiting for a device, and what it need not do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether the host may read a value of `x` at no cost: not from a card, nor inside `torch.compile`."""
    return not (x.is_cuda or torch.compiler.is_compiling())


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Around what computes in the dtypes that it is given; does nothing, at no cost, where autocast is off."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
