"""A kernel that computes something else is caught by the checks that prove its row; this needs no card."""

from __future__ import annotations

from dataclasses import replace
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
    ("d_inputs", "d_taken"): ("linear_attention_removal", "gates that forget"),
    ("d_solve", "d_overlaps"): ("linear_attention_removal", "lengths"),
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


BUILDS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("linear_attention", "as trained", "states", "writes", {"HAS_INITIAL": False, "WANT_STATES": True}),
    ("linear_attention", "packed", "fused", "o", {"DECAY": "none"}),
    ("linear_attention", "cut into segments", "fused", "factors", {"DELTA": False}),
    ("linear_attention_removal", "as trained", "channel_scores", "overlaps", {"READ": True, "EARLY": True}),
    ("linear_attention_removal", "packed", "fused", "o", {"READ": True, "EARLY": True}),
    ("short_conv", "lengths", "conv_forward", "y", {"ALIGNED": True}),
    ("short_conv", "packed, and one token", "conv_backward", "d_x", {"ALIGNED": True, "PACKED": True}),
    ("short_conv", "after a tail", "conv_forward", "y", {"TAIL": True}),
    ("gates", "rates", "gate_forward", "out", {"ALIGNED": True}),
    ("gates", "plain gates", "gate_backward", "d_x", {"ALIGNED": True}),
]
"""Builds that models run, which a first use met in whole proofs alone or never: op, check, kernel, what it writes, and
the constants that tell the build."""

COSTLY = ("lengths", "packed, and one token", "packed", "cut into segments")
"""Checks among them that take seconds."""


def plant(monkeypatch: pytest.MonkeyPatch, kernel: str, output: str, **constants: Any) -> list[str]:
    """From now on each number that the kernel writes is a twentieth too large where it runs with these constants; the
    list has its name as often as it did."""
    run, planted = InterpretedFunction.run, list[str]()

    def run_wrongly(self: Any, *args: Any, **options: Any) -> Any:
        result = run(self, *args, **options)
        given = dict(zip(self.arg_names, args, strict=False)) | options
        if self.fn.__name__ == kernel and constants.items() <= given.items():
            given[output].mul_(1.05)
            planted.append(kernel)
        return result

    monkeypatch.setattr(InterpretedFunction, "run", run_wrongly)
    return planted


@pytest.mark.parametrize(("kernel", "output"), FAULTS, ids=[f"{kernel}-{output}" for kernel, output in FAULTS])
def test_a_wrong_result_of_a_kernel_is_caught(kernel: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number that the kernel writes is a twentieth too large."""
    planted = plant(monkeypatch, kernel, output)
    assert_caught(planted, *FAULTS[kernel, output])


@pytest.mark.parametrize(
    ("op", "name", "kernel", "output", "constants"),
    [
        pytest.param(*build, id=f"{build[2]}-{build[1]}", marks=[pytest.mark.slow] * (build[1] in COSTLY))
        for build in BUILDS
    ],
)
def test_a_fault_of_one_build_is_caught_at_a_first_use(
    op: str, name: str, kernel: str, output: str, constants: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_caught(plant(monkeypatch, kernel, output, **constants), op, name)


def assert_caught(planted: list[str], op: str, name: str) -> None:
    check = next(check for check in known_checks()[op] if check.name == name)
    key = next(key for key in check.table.rows if key[0] == "sm_90")
    attempt = Attempt(key=key, device=torch.device("cpu"), dtype=torch.float32)
    found = attempt_row(attempt, [check])
    assert planted, "the check ran another kernel"
    assert "is off by" in found.fault
    assert found.fault.startswith(name)


def test_a_candidate_that_alone_is_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row whose own configurations are right."""
    check = next(check for check in known_checks()["gates"] if check.name == "plain gates")
    key, table = ("sm_90", 1, 0), check.table
    own, other = (configs["forward"].tiles for configs in (table.rows[key], table.candidates[key][0]))
    assert own["R"] != other["R"]
    planted = plant(monkeypatch, "gate_forward", "out", BLOCK_R=other["R"])
    attempt = Attempt(key=key, device=torch.device("cpu"), dtype=torch.float32)
    assert check.try_case(attempt, check.samples[0]).fault == ""
    assert not planted
    verdict = check.try_case(replace(attempt, candidate=0), check.samples[0])
    assert planted
    assert "output 0 is off by" in verdict.fault
    assert table.candidate(key) is None
