"""How a fused kernel is held to its PyTorch form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

ErrorsOf: TypeAlias = Callable[..., dict[str, float]]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher allocates is full of NaN until the kernel writes it."""
    plain = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **options: plain(*args, **options).fill_(torch.nan))


@pytest.fixture
def errors_of(poisoned: None) -> ErrorsOf:
    """Of every output and gradient, RMS(kernel - float64) / RMS(float64), infinite where the kernel's is not finite."""

    def errors(kernel: Callable[..., Any], plain: Callable[..., Any], *inputs: Tensor) -> dict[str, float]:
        found, wanted = _results(kernel, inputs), _results(plain, [x.double() for x in inputs])
        assert found.keys() == wanted.keys()
        return {name: _ratio(found[name], wanted[name]) for name in found}

    return errors


def _results(op: Callable[..., Any], inputs: Any) -> dict[str, Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = op(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    draw = torch.Generator().manual_seed(9)
    torch.autograd.backward(outputs, [torch.randn(x.shape, generator=draw).to(x.dtype) for x in outputs])
    named = {f"output {index}": x.detach() for index, x in enumerate(outputs)}
    return named | {f"gradient {index}": x.grad for index, x in enumerate(leaves) if x.grad is not None}


def _ratio(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    if not actual.isfinite().all():
        return float("inf")
    difference = (actual.double() - expected).square().mean().sqrt()
    return float(difference / expected.square().mean().sqrt().clamp(min=1e-30))
