"""Comparison: how far a result is from its reference, by root mean squares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

OUTPUT, GRADIENT, GATE = 5e-3, 8e-3, 2e-2
"""Largest RMS(difference) / RMS(reference) of bfloat16 outputs, gradients, and gradients of decays and of beta."""

FULL = 1e-5
"""The same of anything in float32."""

_GATES = {"log_decay", "beta", "gates"}
_ROW = 0.05


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``error``: the largest ratio. ``agreeing``: the share of rows that it was taken over. ``fault``: what is
    wrong, empty when all is well."""

    error: float
    agreeing: float = 1.0
    fault: str = ""


def limit_of(name: str) -> float:
    """The largest ratio that is allowed for the gradient of an input."""
    return GATE if name in _GATES else GRADIENT


def ratio(actual: Tensor, expected: Tensor, *, floor: float = 1e-30) -> float:
    """RMS(difference) / RMS(expected), infinite where `actual` is not finite; RMS(expected) counts as `floor` at
    least, for what vanishes but for rounding."""
    actual, expected = actual.detach().double(), expected.detach().double()
    if not bool(actual.isfinite().all()):
        return math.inf
    difference = float((actual - expected).square().mean().sqrt())
    return difference / max(float(expected.square().mean().sqrt()), floor) if difference else 0.0


def agreeing_rows(actual: Tensor, expected: Tensor) -> Tensor:
    """Rows `[..., 1]` of `[..., D]` that differ by less than a twentieth of the mean row's length, as 0 or 1."""
    difference = (actual.double() - expected.double()).square().mean(-1, keepdim=True).sqrt()
    size = expected.double().square().mean().sqrt()
    return (difference < _ROW * size).to(torch.float32)


def judge(name: str, actual: Tensor, expected: Tensor, limit: float, *, floor: float = 1e-30) -> Verdict:
    """One tensor against its reference."""
    if actual.shape != expected.shape:
        return Verdict(error=math.inf, fault=f"{name} is {list(actual.shape)}, its reference {list(expected.shape)}")
    found = ratio(actual, expected, floor=floor)
    return Verdict(error=found, fault="" if found <= limit else f"{name} is off by {found:.2g}, allowed are {limit:g}")


def worst(verdicts: list[Verdict]) -> Verdict:
    """All of them as one."""
    faults = "; ".join(verdict.fault for verdict in verdicts if verdict.fault)
    agreeing = min(verdict.agreeing for verdict in verdicts)
    return Verdict(error=max(verdict.error for verdict in verdicts), agreeing=agreeing, fault=faults)
