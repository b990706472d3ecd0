"""A kernel that computes something else is caught by the checks that prove its row; this needs no card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import test_gpu_full
import test_gpu_full_ranges
import test_gpu_fused
import test_gpu_linear
import test_gpu_moba
import test_gpu_nsa
import test_gpu_window
import torch
from triton.runtime.interpreter import InterpretedFunction

from archsearch.kernels import Key

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="faults are planted in interpreted kernels")
SMALL: Key = ("sm_90", 16, 0)


def _moba() -> None:
    test_gpu_moba.test_lengths(SMALL, 65)


def _nsa() -> None:
    test_gpu_nsa.test_lengths(SMALL, 15)


def _window() -> None:
    test_gpu_window.test_lengths(SMALL, 33, 7, 5)


def _ranges() -> None:
    test_gpu_full_ranges.test_lengths(SMALL, 33, (4, 2))


def _linear() -> None:
    test_gpu_linear.test_lengths(("sm_90", 16, 16), "delta", "channel", 33)


FAULTS: dict[tuple[str, str], Callable[[], None]] = {
    ("range_forward", "o"): _ranges,
    ("range_grad_query", "dq"): _ranges,
    ("range_grad_keys", "dk"): _ranges,
    ("chosen_forward", "parts"): _moba,
    ("chosen_grad_keys", "dv"): _moba,
    ("chosen_grad_query", "parts"): _moba,
    ("selection_forward", "o"): _nsa,
    ("selection_grad_query", "dq"): _nsa,
    ("attention_forward", "o"): _window,
    ("queries_backward", "dq"): _window,
    ("keys_backward", "dv"): _window,
    ("outputs", "o"): _linear,
    ("d_inputs", "d_k"): _linear,
    ("decode_splits", "partial"): lambda: test_gpu_full.test_lengths(SMALL, 65, (4, 2)),
    ("conv_forward", "y"): lambda: test_gpu_fused.test_conv(("sm_90", 4, 0), 33, "silu"),
    ("gated_backward", "d_gate"): lambda: test_gpu_fused.test_gated_norm(SMALL, 19, "silu"),
    ("unit_forward", "unit"): lambda: test_gpu_fused.test_unit_length(SMALL, 19),
    ("gate_forward", "out"): lambda: test_gpu_fused.test_plain_gates(("sm_90", 1, 0), "sigmoid"),
}
"""By kernel and what it writes: a check of a row that runs it."""


@pytest.mark.parametrize(("kernel", "output"), FAULTS, ids=[f"{kernel}-{output}" for kernel, output in FAULTS])
def test_a_wrong_result_of_a_kernel_is_caught(kernel: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number that the kernel writes is a twentieth too large."""
    run, planted = InterpretedFunction.run, []

    def run_wrongly(self: Any, *args: Any, **options: Any) -> Any:
        result = run(self, *args, **options)
        if self.fn.__name__ == kernel:
            given = dict(zip(self.arg_names, args, strict=False)) | options
            given[output].mul_(1.05)
            planted.append(kernel)
        return result

    monkeypatch.setattr(InterpretedFunction, "run", run_wrongly)
    with pytest.raises(AssertionError, match=r"is off by|not close"):
        FAULTS[kernel, output]()
    assert planted, "the check ran another kernel"


@pytest.mark.parametrize("check", [_ranges, _window, test_gpu_fused.test_conv_of_packed_sequences_and_one_token])
def test_right_results_pass_the_same_checks(check: Callable[..., None]) -> None:
    check() if check in (_ranges, _window) else check(("sm_90", 4, 0))
