"""The device that is measured, by the name that a user gives."""

from __future__ import annotations

import torch

from archsearch.errors import SpecError

NAMES = ("cuda", "cpu")


def device_named(name: str) -> torch.device:
    """CUDA where there is a device and no name says otherwise; raises `SpecError` for one that is not there."""
    if name and name not in NAMES:
        raise SpecError(f"--device {name}: use {' or '.join(NAMES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device cuda: there is no CUDA device here: leave it out, or use cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def dtype_of(device: torch.device) -> torch.dtype:
    """What is measured in: bfloat16 on a card, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
