"""The kernel of the gates, interpreted, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.triton.launch import gates as launch_gates
from archsearch.ops.triton.table import GATES

SHAPES = {"one-number": (1, 1, 1), "odd": (2, 33, 21), "aligned": (2, 40, 96)}


def inputs(shape: tuple[int, ...], heads: int, *, scale: float = 3.0, shift: float = 0.0) -> tuple[Tensor, ...]:
    """Features, biases and rates."""
    draw = torch.Generator().manual_seed(0)
    x = scale * torch.randn(shape, generator=draw) + shift
    return x, torch.randn(shape[-1], generator=draw), torch.randn(heads, generator=draw)


def kernel_rate(want_step: bool) -> Any:
    def gate(x: Tensor, bias: Tensor, rate: Tensor) -> Any:
        out, step = launch_gates.gate(x, bias, rate, "rate", 1.0, want_step)
        return (out, step) if want_step else out

    return gate


def plain_rate(want_step: bool) -> Any:
    def gate(x: Tensor, bias: Tensor, rate: Tensor) -> Any:
        step = F.softplus(x + bias, threshold=60)
        out = (step.unflatten(-1, (len(rate), -1)) * -rate.exp()[:, None]).flatten(-2)
        return (out, step) if want_step else out

    return gate


def bounded_rate(x: Tensor, bias: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    step = F.softplus((x + bias).clamp(max=1e4))
    return (step.unflatten(-1, (len(rate), -1)) * -rate.clamp(max=20.0).exp()[:, None]).flatten(-2), step


@pytest.mark.parametrize("want_step", [True, False], ids=["with-step", "decay-alone"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["rate-a-head", "rate-a-column"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rates(shape: tuple[int, ...], per_channel: bool, want_step: bool, errors_of: Any) -> None:
    heads = max(1, shape[-1] // 3) if per_channel else shape[-1]
    errors = errors_of(kernel_rate(want_step), plain_rate(want_step), *inputs(shape, heads))
    assert max(errors.values()) <= 1e-6, errors


def test_small_steps_keep_their_precision(errors_of: Any) -> None:
    for shift in (-7.0, -15.0, -40.0, -80.0):
        x = torch.full((1, 64), shift) + torch.linspace(-0.5, 0.5, 64)
        step = launch_gates.gate(x, torch.zeros(64), torch.zeros(1), "rate", 1.0, True)[1]
        torch.testing.assert_close(step.double(), torch.log1p(x.double().exp()), rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("form", "plain"), [("logsigmoid", lambda x: F.logsigmoid(x) / 16), ("sigmoid", torch.sigmoid)]
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_plain_gates(shape: tuple[int, ...], form: str, plain: Any, errors_of: Any) -> None:
    x = inputs(shape, 1)[0]
    errors = errors_of(lambda x: launch_gates.gate(x, None, None, form, 16.0, False)[0], plain, x)
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("x", [-1000.0, -90.0, 0.0, 90.0, 1000.0])
def test_extremes_are_finite(x: float) -> None:
    for form, expected in (
        ("rate", -F.softplus(torch.tensor(x).double())),
        ("logsigmoid", F.logsigmoid(torch.tensor(x).double())),
        ("sigmoid", torch.tensor(x).double().sigmoid()),
    ):
        leaf = torch.full((1, 4), x, requires_grad=True)
        out, _ = launch_gates.gate(leaf, torch.zeros(4), torch.zeros(1), form, 1.0, False)
        out.sum().backward()
        torch.testing.assert_close(out.double(), expected.expand(1, 4), rtol=1e-5, atol=1e-38)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("log_rate", [19.0, 20.5, 89.0, 3e38, torch.inf, -torch.inf, -3e38], ids=str)
@pytest.mark.parametrize("x", [-3e38, -50.0, 1.0, 9e3, 1.1e4, 3e38, torch.inf], ids=str)
def test_whatever_trained_the_rate_is_finite_and_bounded_as_in_pytorch(x: float, log_rate: float) -> None:
    found, wanted = [], []
    for gate, results in ((kernel_rate(True), found), (bounded_rate, wanted)):
        leaves = [torch.full(shape, value, requires_grad=True) for shape, value in (((2, 6), x), ((6,), 0.5))]
        leaves.append(torch.full((3,), log_rate, requires_grad=True))
        out, step = gate(*leaves)
        (1e-3 * out + step).sum().backward()
        results += [out, step, *(leaf.grad for leaf in leaves)]
    assert all(result.isfinite().all() for result in found)
    for result, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-37)


def test_nan_stays() -> None:
    one, nan = torch.ones(1, 4), torch.full((1, 4), torch.nan)
    for x, bias, rate in ((nan, one[0], one[0]), (one, nan[0], one[0]), (one, one[0], nan[0])):
        assert launch_gates.gate(x, bias, rate, "rate", 1.0, False)[0].isnan().all()


def test_a_cut_of_a_wider_projection(errors_of: Any) -> None:
    x, bias, rate = inputs((2, 20, 80), 4)
    errors = errors_of(
        lambda x, bias, rate: kernel_rate(True)(x[..., 5:65], bias, rate),
        lambda x, bias, rate: plain_rate(True)(x[..., 5:65], bias, rate),
        x,
        bias[:60],
        rate,
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("key", [pytest.param(key, id=key[0]) for key in GATES.rows])
def test_every_configuration(key: tuple[str, int, int], errors_of: Any) -> None:
    with GATES.forced(key):
        errors = errors_of(kernel_rate(True), plain_rate(True), *inputs((2, 70, 136), 17))
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_features_give_float32_gates(dtype: torch.dtype, poisoned: None) -> None:
    x, bias, rate = inputs((2, 20, 60), 4)
    out, step = launch_gates.gate(x.to(dtype), bias, rate, "rate", 1.0, True)
    expected = plain_rate(True)(x.to(dtype).double(), bias.double(), rate.double())
    for found, wanted in zip((out, step), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)


def test_the_op_keeps_the_rules_of_custom_ops() -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
    leaves = [x.requires_grad_() for x in inputs((2, 9, 12), 3)]
    torch.library.opcheck(launch_gates.gate, (*leaves, "rate", 1.0, True), test_utils=tests)
    torch.library.opcheck(launch_gates.gate, (*leaves, "rate", 1.0, False), test_utils=tests)
    torch.library.opcheck(launch_gates.gate, (leaves[0], None, None, "sigmoid", 1.0, False), test_utils=tests)
