"""Cell: one computation, as archsearch and as a peer do it, with what makes them comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS, WIDTH = 4, 64
"""Of every cell: 4 heads of 64 channels, as a model of d 256 has them."""

SHORT, MIDDLE, LONG = (1, 256), (4, 1024), (1, 4096)
"""Batch and tokens of the ops."""

Inputs = Mapping[str, Tensor]
Form = Callable[[Inputs], Tensor]


@dataclass(frozen=True, kw_only=True)
class OpCell:
    """An op over sequences. ``inputs`` makes what both forms read, for a batch and a length; those of floating point
    get gradients. ``tolerance`` is what the peer's outputs and gradients may differ by, as RMS(diff) / RMS(ours)."""

    name: str
    peer: str
    sizes: tuple[tuple[int, int], ...] = (SHORT, MIDDLE, LONG)
    inputs: Callable[[int, int], Inputs]
    ours: Form
    theirs: Form
    tolerance: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One decoded token a call, `[B]` to logits `[B, V]`, by each side; both start with the same tokens behind them."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepCell:
    """Decoding by whole models. ``tolerance`` None: the two define their layers differently, at the same sizes, and
    outputs are not compared."""

    name: str
    peer: str
    make: Callable[[], Steps]
    tolerance: float | None = 1e-4


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that a seed names."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear_inputs(batch: int, tokens: int, *, gates: tuple[int, ...] | None, delta: bool) -> dict[str, Tensor]:
    """q, k of length 1, v `[B, T, H, D]`; log decays `[B, T, H, *gates]`; strengths of the delta rule."""
    shape = (batch, tokens, HEADS, WIDTH)
    inputs = {"q": F.normalize(normal(0, *shape), dim=-1), "k": F.normalize(normal(1, *shape), dim=-1)}
    inputs["v"] = normal(2, *shape)
    if gates is not None:
        inputs["log_decay"] = F.logsigmoid(normal(3, *shape[:3], *gates) + 3)
    if delta:
        inputs["beta"] = normal(4, *shape[:3]).sigmoid()
    return inputs
