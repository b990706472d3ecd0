"""The kernels of the norms, interpreted, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from archsearch.errors import KernelUnavailableError
from archsearch.ops.gated_norm import gated_norm
from archsearch.ops.triton.launch import norms as launch_norms
from archsearch.ops.triton.table import GATED, UNIT

DIMS = [1, 5, 16, 32, 60, 64, 128, 200]
TABLES = [
    pytest.param(table, key, id=f"{table.op}-{key[0]}-D{key[1]}") for table in (UNIT, GATED) for key in table.rows
]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def unit(x: Tensor) -> Tensor:
    return launch_norms.unit_length(x)[0]  # type: ignore[no-any-return]


def explicit_unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def explicit(x: Tensor, weight: Tensor, gate: Tensor | None = None, activation: str = "none") -> Tensor:
    out = (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight).flatten(-2)
    if gate is None:
        return out
    return out * (gate.sigmoid() if activation == "sigmoid" else gate * gate.sigmoid())


@pytest.mark.parametrize("dim", DIMS)
def test_unit_length(dim: int, errors_of: Any) -> None:
    errors = errors_of(unit, explicit_unit, random(2, 19, 3, dim))
    if dim == 1:
        errors.pop("gradient 0")  # zero but for rounding
    assert max(errors.values()) <= 1e-6, errors


def test_zero_keeps_zero_length(poisoned: None) -> None:
    x = torch.zeros(1, 3, 2, 20)
    x[0, 1, 1, 3] = -2.0
    leaf = x.clone().requires_grad_()
    found = unit(leaf)
    torch.testing.assert_close(found, explicit_unit(x))
    assert not found[x == 0].any()
    found.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-20, 1e-4, 1e-3, 1e-2, 1.0, 1e6], ids=str)
def test_vectors_of_any_length(size: float, errors_of: Any) -> None:
    errors = errors_of(unit, explicit_unit, size * random(2, 9, 3, 20))
    assert max(errors.values()) <= 1e-6, errors


def test_a_cut_of_a_wider_tensor(errors_of: Any) -> None:
    errors = errors_of(
        lambda x: unit(x[..., 3:43].unflatten(-1, (2, 20))),
        lambda x: explicit_unit(x[..., 3:43].unflatten(-1, (2, 20))),
        random(2, 9, 50),
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("activation", ["none", "silu", "sigmoid"])
@pytest.mark.parametrize("dim", DIMS)
def test_gated_norm(dim: int, activation: str, errors_of: Any) -> None:
    inputs = [random(2, 19, 3, dim), random(dim), random(2, 19, 3 * dim)][: 2 if activation == "none" else 3]
    errors = errors_of(
        lambda x, weight, gate=None: launch_norms.gated_norm(x, weight, gate, activation, 1e-6),
        lambda x, weight, gate=None: explicit(x, weight, gate, activation),
        *inputs,
    )
    if dim == 1:
        errors.pop("gradient 0")
    assert max(errors.values()) <= 1e-6, errors


def test_a_gate_cut_out_of_a_projection(errors_of: Any) -> None:
    errors = errors_of(
        lambda x, weight, wide: launch_norms.gated_norm(x, weight, wide[..., 7:47], "silu", 1e-6),
        lambda x, weight, wide: explicit(x, weight, wide[..., 7:47]),
        random(2, 9, 2, 20),
        random(20),
        random(2, 9, 60),
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize(("table", "key"), TABLES)
def test_every_configuration(table: Any, key: tuple[str, int, int], errors_of: Any) -> None:
    dim = key[1]
    with table.forced(key):
        if table is UNIT:
            errors = errors_of(unit, explicit_unit, random(1, 50, 8, dim))
        else:
            errors = errors_of(
                lambda *inputs: launch_norms.gated_norm(*inputs, "silu", 1e-6),
                explicit,
                random(1, 50, 8, dim),
                random(dim),
                random(1, 50, 8 * dim),
            )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("activation", ["none", "silu", "sigmoid"])
def test_both_forms_agree_where_layers_call(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, gate = random(2, 9, 3, 20).half(), random(20), random(2, 9, 60).half()
    gates = None if activation == "none" else gate
    plain = gated_norm(x, weight, gates, activation=activation)
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    fused = gated_norm(x, weight, gates, activation=activation)
    assert (plain.dtype, fused.dtype) == (torch.float32, torch.float16)
    torch.testing.assert_close(fused, plain.half(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_normed_in_float32(dtype: torch.dtype, poisoned: None) -> None:
    x, weight, gate = (100 * random(4, 3, 60)).to(dtype), random(60), random(4, 180).to(dtype)
    out = launch_norms.gated_norm(x, weight, gate, "silu", 1e-6)
    torch.testing.assert_close(out, explicit(x.double(), weight.double(), gate.double()).to(dtype))
    torch.testing.assert_close(unit(x), explicit_unit(x.double()).to(dtype))


def test_nothing_to_do() -> None:
    weight = torch.ones(8, requires_grad=True)
    out = launch_norms.gated_norm(torch.ones(2, 0, 3, 8, requires_grad=True), weight, torch.ones(2, 0, 24), "silu", 0.1)
    assert out.shape == (2, 0, 24)
    out.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()
    assert unit(torch.ones(0, 3, 8)).shape == (0, 3, 8)


def test_the_ops_keep_the_rules_of_custom_ops() -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
    x, weight, gate = (y.requires_grad_() for y in (random(2, 9, 3, 8), random(8), random(2, 9, 24)))
    torch.library.opcheck(launch_norms.unit_length, (x,), test_utils=tests)
    torch.library.opcheck(launch_norms.gated_norm, (x, weight, gate, "silu", 1e-6), test_utils=tests)
    torch.library.opcheck(launch_norms.gated_norm, (x, weight, None, "none", 1e-6), test_utils=tests)


def test_too_long_vectors_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    with pytest.raises(KernelUnavailableError, match="gated_norm: head_dim = 257 has no Triton configuration"):
        gated_norm(random(1, 2, 257), random(257), None)
