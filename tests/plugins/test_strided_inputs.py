"""Kernels take inputs that lie in memory in any way: slices, transposed heads, expanded rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from kernel_calls import CONTINUED, SEQUENCES, STEPS, Sizes
from torch import Tensor


def of_every_second(x: Tensor) -> Tensor:
    """The same numbers, two apart in memory."""
    return torch.stack((x, torch.zeros_like(x)), dim=-1)[..., 0]


def turned(x: Tensor) -> Tensor:
    """The same numbers, the axes the other way round in memory."""
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {"every-second": of_every_second, "turned": turned}
STEP_SIZES: dict[str, Any] = {"tokens": 20, "batch": 2, "heads": 4, "dim": 9}
CONTINUED_SIZES: dict[str, Any] = {"tokens": 11, "batch": 2, "heads": 4, "dim": 9, "continued": True}


@dataclass(frozen=True, kw_only=True)
class Strided(Sizes):
    """Sizes whose tensors are laid out so."""

    layout: Callable[[Tensor], Tensor] = field(default=of_every_second)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.layout(super().normal(*shape, dtype=dtype))

    def lengths(self) -> Tensor:
        return of_every_second(super().lengths())


@cache
def plain_step(op: str) -> Tensor:
    """What a step gives of `STEP_SIZES` that lie in a row."""
    return STEPS[op](Sizes(**STEP_SIZES))


@cache
def plain_continued(op: str) -> tuple[Tensor, ...]:
    """What tokens after `CONTINUED_SIZES` give that lie in a row."""
    return tuple(SEQUENCES[op](Sizes(**CONTINUED_SIZES)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", STEPS)
def test_decode_steps(op: str, layout: str) -> None:
    with torch.no_grad():
        assert torch.equal(STEPS[op](Strided(layout=LAYOUTS[layout], **STEP_SIZES)), plain_step(op))


@pytest.mark.parametrize(("packed", "layout"), [(False, "every-second"), (True, "turned")])
@pytest.mark.parametrize("op", [op for op in SEQUENCES if "linear" not in op or op == "linear-delta-channel"])
def test_sequences(op: str, packed: bool, layout: str) -> None:
    sizes = {"tokens": 10, "batch": 1 if packed else 2, "dim": 9, "packed": packed}
    with torch.no_grad():
        pairs = zip(SEQUENCES[op](Strided(layout=LAYOUTS[layout], **sizes)), SEQUENCES[op](Sizes(**sizes)), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", CONTINUED)
def test_after_cached_tokens(op: str, layout: str) -> None:
    with torch.no_grad():
        strided = SEQUENCES[op](Strided(layout=LAYOUTS[layout], **CONTINUED_SIZES))
        assert all(torch.equal(*pair) for pair in zip(strided, plain_continued(op), strict=True))
