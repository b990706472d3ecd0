"""A kernel that computes something else is caught by the checks that prove its row; this needs no card."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from known_checks import known_checks
from triton.runtime.interpreter import InterpretedFunction

from archsearch.proving import Attempt
from archsearch.proving.attempt import attempt_row

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="faults are planted in interpreted kernels")
FAULTS: dict[tuple[str, str], tuple[str, str]] = {
    ("range_forward", "o"): ("full_attention", "lengths"),
    ("range_grad_query", "dq"): ("full_attention", "lengths"),
    ("range_grad_keys", "dk"): ("full_attention", "lengths"),
    ("chosen_forward", "parts"): ("moba_attention", "packed"),
    ("chosen_grad_keys", "dv"): ("moba_attention", "packed"),
    ("chosen_grad_query", "parts"): ("moba_attention", "packed"),
    ("selection_forward", "o"): ("nsa_attention", "narrower heads in a group of 3"),
    ("selection_grad_query", "dq"): ("nsa_attention", "narrower heads in a group of 3"),
    ("attention_forward", "o"): ("window_attention", "narrower heads"),
    ("queries_backward", "dq"): ("window_attention", "narrower heads"),
    ("keys_backward", "dv"): ("window_attention", "narrower heads"),
    ("fused", "o"): ("linear_attention", "gates that forget"),
    ("outputs", "o"): ("linear_attention", "packed"),
    ("d_inputs", "d_k"): ("linear_attention", "gates that forget"),
    ("decode_splits", "partial"): ("full_attention", "step"),
    ("latent_splits", "partial"): ("latent_attention_absorbed", "step"),
    ("listed_forward", "o"): ("indexed_attention", "narrower heads"),
    ("listed_grad_query", "dq"): ("indexed_attention", "narrower heads"),
    ("listed_grad_keys", "dv"): ("indexed_attention", "narrower heads"),
    ("conv_forward", "y"): ("short_conv", "lengths"),
    ("gated_backward", "d_gate"): ("gated_norm", "lengths"),
    ("unit_forward", "unit"): ("unit_length", "lengths"),
    ("gate_forward", "out"): ("gates", "plain gates"),
}
"""By kernel and what it writes: the op and a check of its rows that runs it."""


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
    op, name = FAULTS[kernel, output]
    check = next(check for check in known_checks()[op] if check.name == name)
    key = next(key for key in check.table.rows if key[0] == "sm_90")
    attempt = Attempt(key=key, device=torch.device("cpu"), dtype=torch.float32)
    found = attempt_row(attempt, [check])
    assert planted, "the check ran another kernel"
    assert "is off by" in found.fault
    assert found.fault.startswith(name)
