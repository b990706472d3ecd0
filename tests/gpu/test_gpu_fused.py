"""The core's small fused kernels on the card against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import test_fused_conv
import test_fused_gates
import test_fused_norm
import torch
import torch.nn.functional as F
from gpu_checks import LONG, Op, check, on_card, rows_of
from torch import Tensor

from archsearch.kernels import Key
from archsearch.ops.triton.launch import conv as launch_conv
from archsearch.ops.triton.launch import gates as launch_gates
from archsearch.ops.triton.launch import norms as launch_norms
from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT


def tuples(function: Any, *names: str) -> Op:
    """A function of tensors as one of named tensors that gives a tuple."""

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        out = function(*(inputs[name] for name in names))
        return out if isinstance(out, tuple) else (out,)

    return run  # type: ignore[return-value]


def positions_of(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(length, device=device) for length in lengths])[None]


@pytest.mark.sample(tokens=33, activation="silu")
@pytest.mark.parametrize("key", rows_of(CONV))
@pytest.mark.proves(CONV)
@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("tokens", [1, 31, 33, 65, 1000, LONG])
def test_conv(key: Key, tokens: int, activation: str) -> None:
    for width in {key[1], key[1] // 2 + 1}:
        x, weight = test_fused_conv.inputs(tokens, width, batch=1 if tokens > 1000 else 2)
        inputs = on_card({"x": x, "weight": weight}, ["x"])
        kernel = tuples(lambda x, weight: launch_conv.conv(x, weight, None, None, activation), "x", "weight")
        plain = tuples(lambda x, weight: _shifted(x, weight, activation), "x", "weight")
        with CONV.forced(key):
            check(kernel, plain, inputs, trained=["x", "weight"])


def _shifted(x: Tensor, weight: Tensor, activation: str, positions: Tensor | None = None) -> Tensor:
    """By its definition, without a module."""
    out = x * weight[0]
    for shift in range(1, min(weight.shape[0], x.shape[1])):
        moved = x[:, :-shift] * weight[shift]
        if positions is not None:
            moved = torch.where((positions[:, shift:] >= shift)[..., None], moved, 0.0)
        out = out + F.pad(moved, (0, 0, shift, 0))
    return F.silu(out) if activation == "silu" else out


@pytest.mark.parametrize("key", rows_of(CONV))
@pytest.mark.proves(CONV)
def test_conv_of_packed_sequences_and_one_token(key: Key) -> None:
    x, weight = test_fused_conv.inputs(103, key[1], batch=1)
    inputs = on_card({"x": x, "weight": weight}, ["x"])
    positions = positions_of((2, 1, 40, 0, 60), inputs["x"].device)
    kernel = tuples(lambda x, weight: launch_conv.conv(x, weight, None, positions, "silu"), "x", "weight")
    plain = tuples(lambda x, weight: _shifted(x, weight, "silu", positions), "x", "weight")
    tail = inputs["x"][:, : key[1] - 1]
    with CONV.forced(key):
        check(kernel, plain, inputs, trained=["x", "weight"])
        stepped = launch_conv.conv_token(inputs["x"][:, key[1] - 1], inputs["weight"], tail.clone(), "none")
    whole = _shifted(inputs["x"][:, : key[1]].double(), inputs["weight"].double(), "none")[:, -1]
    torch.testing.assert_close(stepped.double(), whole, rtol=1e-2, atol=1e-2)


@pytest.mark.sample(tokens=19)
@pytest.mark.parametrize("key", rows_of(UNIT))
@pytest.mark.proves(UNIT)
@pytest.mark.parametrize("tokens", [1, 19, LONG])
def test_unit_length(key: Key, tokens: int) -> None:
    for dim in {key[1], key[1] - 4}:
        inputs = on_card({"x": test_fused_norm.random(1, tokens, 3, dim)}, ["x"])
        with UNIT.forced(key):
            check(tuples(test_fused_norm.unit, "x"), tuples(test_fused_norm.explicit_unit, "x"), inputs, trained=["x"])


@pytest.mark.sample(tokens=19, activation="silu")
@pytest.mark.parametrize("key", rows_of(GATED))
@pytest.mark.proves(GATED)
@pytest.mark.parametrize("activation", ["none", "silu", "sigmoid"])
@pytest.mark.parametrize("tokens", [1, 19, LONG])
def test_gated_norm(key: Key, tokens: int, activation: str) -> None:
    names = ("x", "weight", "gate")[: 2 if activation == "none" else 3]
    for dim in {key[1], key[1] - 4}:
        drawn = {"x": (1, tokens, 3, dim), "weight": (dim,), "gate": (1, tokens, 3 * dim)}
        inputs = on_card({name: test_fused_norm.random(*drawn[name]) for name in names}, ["x", "gate"])

        def kernel(x: Tensor, weight: Tensor, gate: Tensor | None = None) -> Tensor:
            return launch_norms.gated_norm(x, weight, gate, activation, 1e-6)  # type: ignore[no-any-return]

        def plain(x: Tensor, weight: Tensor, gate: Tensor | None = None) -> Tensor:
            return test_fused_norm.explicit(x, weight, gate, activation)

        with GATED.forced(key):
            check(tuples(kernel, *names), tuples(plain, *names), inputs, trained=names)


@pytest.mark.sample(shape=(2, 33, 21))
@pytest.mark.parametrize("key", rows_of(GATES))
@pytest.mark.proves(GATES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 33, 21), (1, LONG, 96)], ids=str)
@pytest.mark.parametrize("want_step", [True, False], ids=["with-step", "decay-alone"])
def test_rates(key: Key, shape: tuple[int, ...], want_step: bool) -> None:
    names = ("x", "bias", "rate")
    drawn = test_fused_gates.inputs(shape, max(1, shape[-1] // 3))
    inputs = on_card(dict(zip(names, drawn, strict=True)), ["x"])
    with GATES.forced(key):
        check(
            tuples(test_fused_gates.kernel_rate(want_step), *names),
            tuples(test_fused_gates.plain_rate(want_step), *names),
            inputs,
            trained=names,
        )


@pytest.mark.parametrize("key", rows_of(GATES))
@pytest.mark.proves(GATES)
@pytest.mark.parametrize("form", ["logsigmoid", "sigmoid"])
def test_plain_gates(key: Key, form: str) -> None:
    inputs = on_card({"x": test_fused_gates.inputs((2, 333, 70), 1)[0]}, ["x"])
    plain = {"logsigmoid": lambda x: F.logsigmoid(x) / 16, "sigmoid": torch.sigmoid}[form]
    kernel = tuples(lambda x: launch_gates.gate(x, None, None, form, 16.0, False)[0], "x")
    with GATES.forced(key):
        check(kernel, tuples(plain, "x"), inputs, trained=["x"])
