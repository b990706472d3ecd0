"""Ops by kernels read no value back from the device, forwards, backwards and in a decode step."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import torch
from kernel_calls import SEQUENCES, STEPS, Sizes
from kernel_variants import variants
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("item", "tolist", "nonzero", "numpy", "__bool__", "__int__", "__float__", "__index__", "cpu")


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is asked for its value fails the test."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a value was read back from the device")

    for name in READS:
        monkeypatch.setattr(Tensor, name, refuse)
    for name in ("nonzero", "masked_select", "unique"):
        monkeypatch.setattr(torch, name, refuse)


class Called(TorchDispatchMode):
    """The names of the ops that have been called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


def run_sequence(op: str, packed: bool) -> None:
    outputs = [out for out in SEQUENCES[op](Sizes(tokens=12, packed=packed)) if out.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])


def run_step(op: str) -> None:
    with torch.no_grad():
        assert STEPS[op](Sizes(tokens=20, batch=2)).shape == (2, 2, 16)


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("op", SEQUENCES)
def test_forwards_and_backwards(op: str, packed: bool, no_reads: None) -> None:
    run_sequence(op, packed)


@pytest.mark.parametrize("op", STEPS)
def test_decode_step(op: str, no_reads: None) -> None:
    run_step(op)


def test_every_op_by_kernels_is_among_them() -> None:
    with Called() as called, variants():
        for op in SEQUENCES:
            run_sequence(op, packed=False)
        for op in STEPS:
            run_step(op)
    ops = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("archsearch::")}
    assert ops, "no op has been registered"
    assert not ops - called.names


def test_a_value_that_is_read_fails(no_reads: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="read back"):
        torch.ones(1).item()
