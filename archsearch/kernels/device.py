"""Devices as kernels know them: the architecture, and what stands in the way of Triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INTERPRETED = "sm_90"
"""The architecture whose rows the interpreter runs."""


_standing_in: ContextVar[str] = ContextVar("standing_in", default="")


@contextmanager
def standing_in(arch: str) -> Iterator[None]:
    """While the block runs, tensors that are on no card count as being on one of that architecture: for whoever lists
    launches instead of making them."""
    token = _standing_in.set(arch)
    try:
        yield
    finally:
        _standing_in.reset(token)


def interpreting() -> bool:
    """Whether Triton's interpreter stands in for a card: ``TRITON_INTERPRET=1`` when Triton was imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "on", "yes", "y"}


def arch_of(device: torch.device) -> str:
    """The architecture, as in "sm_90", of a CUDA device; of any other that which the CPU or the interpreter stands in
    for."""
    import torch

    if device.type != "cuda":
        return _standing_in.get() or INTERPRETED
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def obstacle(device: torch.device) -> str | None:
    """Why no Triton kernel can run on a device, None where one can."""
    if importlib.util.find_spec("triton") is None:
        return 'Triton is not installed (pip install "archsearch[kernels]")'
    if device.type != "cuda" and not interpreting() and not _standing_in.get():
        return f"tensors are on the device {device.type}, not on cuda (TRITON_INTERPRET=1 interprets kernels there)"
    return None


def takes_kernels(device: torch.device) -> bool:
    """Whether "auto" may run a kernel on a device."""
    return device.type == "cuda"
