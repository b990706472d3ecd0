"""Whole proofs at their real sizes, up to 65537 tokens: each case draws its inputs and launches kernels in bfloat16.

Forwards and backwards; the kernels are listed instead of run, since only a card has the time for them. What this shows
is that no case asks for a grid or a shape that there is not; verdicts are a card's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from known_checks import known_checks
from torch import Tensor

import archsearch.proving.judging as judging
from archsearch.proving import Attempt, Check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="a card runs them (-m gpu)"),
    pytest.mark.timeout(1800),
]
FAR, FEW = 2**31, 2**16
"""More programs than a grid may have along its first axis, and along the others (CUDA C++ Programming Guide)."""


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was launched, by the kernel's name; a reference is taken for what the kernels gave."""
    from triton.runtime.interpreter import InterpretedFunction

    launched: list[tuple[str, dict[str, Any]]] = []
    run, kept = judging._run, dict[str, Any]()

    def list_one(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = dict(zip(kernel.arg_names, args, strict=False)) | options
        sizes = grid(given) if callable(grid) else grid
        within = all(size < limit for size, limit in zip(sizes, (FAR, FEW, FEW), strict=False))
        assert within, f"{kernel.fn.__name__}: a grid of {sizes}"
        launched.append((kernel.fn.__name__, given))

    def run_kernels(
        op: Any, inputs: dict[str, Tensor], trained: list[str], decided: Tensor | None, low: bool
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        if not any(x.dtype == torch.float64 for x in inputs.values()):
            kept["found"] = run(op, inputs, trained, decided, low)
        return kept["found"]

    monkeypatch.setattr(torch, "empty", torch.zeros)  # a list of blocks that nobody wrote is no index
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    monkeypatch.setattr(Tensor, "new_empty", Tensor.new_zeros)
    monkeypatch.setattr(InterpretedFunction, "run", list_one)
    monkeypatch.setattr(judging, "_run", run_kernels)
    return launched


def try_whole(check: Check, launched: list[tuple[str, dict[str, Any]]]) -> None:
    """Every case in the row of most models."""
    rows = check.table.rows
    key = next((key for key in rows if key[:2] == ("sm_90", 128)), next(iter(rows)))
    attempt = Attempt(key=key, device=torch.device("cpu"), dtype=torch.bfloat16, whole=True)
    for case in check.cases:
        launched.clear()
        check.try_case(attempt, case)
        assert launched, f"{check.label(case)}: nothing was launched"


@pytest.mark.parametrize("op", sorted(known_checks()))
def test_whole_cases(op: str, listed: list[tuple[str, dict[str, Any]]]) -> None:
    for check in known_checks()[op]:
        try_whole(check, listed)


def test_a_long_whole_case_has_more_tokens_than_16_bits_count(listed: list[tuple[str, dict[str, Any]]]) -> None:
    (check,) = (check for check in known_checks()["unit_length"] if check.name == "lengths")
    try_whole(check, listed)
    assert max(given["rows"] for _, given in listed) > 2**16
