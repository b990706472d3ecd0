"""Where the parameters of state space layers start."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STEPS = (1e-3, 0.1)
"""Between which step sizes start, log-uniform (Mamba, arXiv 2312.00752, section 3.6; S4D's and Mamba-3's code)."""


def start_of_steps(count: int) -> Tensor:
    """Step sizes `[count]`."""
    low, high = (math.log(bound) for bound in _STEPS)
    return torch.empty(count).uniform_(low, high).exp()


def start_of_modes(start: str, states: int) -> tuple[Tensor, Tensor]:
    """Rates and angles `[states]` (arXiv 2206.11893, section 4: S4D-Real, S4D-Lin, S4D-Inv)."""
    n = torch.arange(float(states))
    if start == "real":
        return n + 1, torch.zeros(states)
    half = torch.full((states,), 0.5)
    if start == "lin":
        return half, math.pi * n
    whole = 2 * states  # of the states that come in pairs
    return half, whole / math.pi * (whole / (2 * n + 1) - 1)
