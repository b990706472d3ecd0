"""The interpreter of the tests patches Triton's language once a launch, and computes what Triton's own does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

N = 8


@triton.jit
def twice(x):
    return x + x


@triton.jit
def sums_of_powers(x_ptr, out_ptr, POWERS: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    for _ in range(POWERS):
        x = twice(x)
    tl.store(out_ptr, tl.sum(x, 0))


def launched(powers: int) -> float:
    out = torch.empty(1)
    sums_of_powers[(1,)](torch.ones(N), out, powers, N)
    return float(out)


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the interpreter looks through for names to patch, each time."""
    seen: list[Any] = []
    plain = interpreter._patch_builtin
    monkeypatch.setattr(interpreter, "_patch_builtin", lambda found, *rest: (seen.append(found), plain(found, *rest)))
    return seen


def test_device_functions_cost_no_patches(patches: list[Any]) -> None:
    launched(1)  # rewrites the functions, which adds names to their modules
    patches.clear()
    assert launched(0) == N
    few = len(patches)
    patches.clear()
    assert launched(9) == N * 2**9
    assert few
    assert len(patches) == few


def test_a_launch_leaves_the_language_as_it_was_even_where_it_fails() -> None:
    before = tl.arange, tl.load, tl.tensor.__add__
    launched(3)
    with pytest.raises(interpreter.InterpreterError):
        sums_of_powers[(1,)](torch.ones(N), None, 1, N)
    assert (tl.arange, tl.load, tl.tensor.__add__) == before
    assert launched(2) == N * 4
