"""Sums of log decays over tokens."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_FORGOTTEN = -1e3
"""A log decay below which nothing is left even in float64, so that -inf may be given."""


SMALL = -80.0
"""The sum of log decays at which `decays` ends."""


def forgetting(gates: Tensor) -> Tensor:
    """Log decays, with what forgets all as a number that can be added and multiplied."""
    return gates.clamp(min=_FORGOTTEN)


def decays(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """exp of sums of log decays; of less than -80 it is 0: next to nothing is left, and a CPU computes many times
    slower with numbers below e^-87."""
    return F.threshold(sums.to(dtype), SMALL, -torch.inf).exp_()


def running_sums(gates: Tensor) -> Tensor:
    """Sums of log decays `[..., C, K]` up to and with each token, in float64: there a difference of two sums keeps a
    gate of -0.001 beside others of -1000, and exp of a sum of 120 keeps all digits of float32."""
    return forgetting(gates).cumsum(-2, dtype=torch.float64)


@lru_cache(maxsize=16)
def triangles(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Constants `[C, C]`, ones on and below the diagonal, and below it."""
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        ones = torch.ones(size, size, dtype=dtype, device=device)
        return ones.tril(), ones.tril(-1)
