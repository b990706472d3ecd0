"""The kernel of the short convolution, interpreted, against its PyTorch form in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.errors import KernelUnavailableError
from archsearch.ops.short_conv import ShortConv, next_tail
from archsearch.ops.triton.launch import conv as launch_conv
from archsearch.ops.triton.table import CONV


def small_ones(tokens: list[int], widths: list[int]) -> list[Any]:
    """A pair of token count and width; most of them slow."""
    quick = {(1, 4), (31, 2), (33, 4), (65, 7), (2, 16)}
    return [
        pytest.param(count, width, id=f"T{count}-W{width}", marks=[] if (count, width) in quick else pytest.mark.slow)
        for count in tokens
        for width in widths
    ]


SIZES = small_ones([1, 2, 31, 32, 33, 63, 64, 65, 100], [1, 2, 3, 4, 7, 16])


def plain(x: Tensor, weight: Tensor, activation: str = "none", **options: Any) -> Tensor:
    """The PyTorch form with another weight."""
    conv = ShortConv(x.shape[2], weight.shape[0]).to(x.dtype)
    out = torch.func.functional_call(conv, {"weight": weight}, x, options)
    return F.silu(out) if activation == "silu" else out


def inputs(tokens: int, width: int, *, batch: int = 2, channels: int = 70) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(batch, tokens, channels, generator=draw), torch.randn(width, channels, generator=draw)


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers run their kernels."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize(("tokens", "width"), SIZES)
def test_outputs_and_gradients(tokens: int, width: int, activation: str, errors_of: Any) -> None:
    errors = errors_of(
        lambda x, weight: launch_conv.conv(x, weight, None, None, activation),
        lambda x, weight: plain(x, weight, activation),
        *inputs(tokens, width),
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("width", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_packed_sequences(width: int, activation: str, errors_of: Any) -> None:
    positions = torch.cat([torch.arange(length) for length in (2, 1, 40, 0, 30)])[None]
    errors = errors_of(
        lambda x, weight: launch_conv.conv(x, weight, None, positions, activation),
        lambda x, weight: plain(x, weight, activation, positions=positions),
        *inputs(73, width, batch=1),
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("key", [pytest.param(key, id=f"{key[0]}-W{key[1]}") for key in CONV.rows])
def test_every_configuration(key: tuple[str, int, int], errors_of: Any) -> None:
    with CONV.forced(key):
        errors = errors_of(
            lambda x, weight: launch_conv.conv(x, weight, None, None, "silu"),
            lambda x, weight: plain(x, weight, "silu"),
            *inputs(35, 4, batch=1, channels=8),
        )
        tail, (x, weight) = torch.randn(1, 3, 8), inputs(1, 4, batch=1, channels=8)
        stepped = launch_conv.conv_token(x[:, 0], weight, tail.clone(), "none")
    assert max(errors.values()) <= 1e-6, errors
    torch.testing.assert_close(stepped, plain(x, weight, tail=tail)[:, 0])


def test_a_cut_of_a_wider_projection(errors_of: Any) -> None:
    wide, weight = inputs(40, 4, channels=90)
    errors = errors_of(
        lambda x, weight: launch_conv.conv(x[..., 8:72], weight, None, None, "silu"),
        lambda x, weight: plain(x[..., 8:72], weight, "silu"),
        wide,
        weight[:, :64],
    )
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("gradients", [True, False], ids=["trained", "not-trained"])
def test_a_tail_carries_over(gradients: bool, width: int, by_kernel: None, poisoned: None) -> None:
    torch.manual_seed(0)
    conv, x = ShortConv(10, width), torch.randn(2, 40, 10)
    expected = plain(x.double(), conv.weight.detach().double(), "silu")
    tail, parts = torch.zeros(2, width - 1, 10), []
    with torch.set_grad_enabled(gradients):
        for start, end in ((0, 2), (2, 37)):
            parts.append(conv(x[:, start:end], tail=tail, activation="silu"))
            tail = next_tail(tail, x[:, start:end])
        for token in (37, 38, 39):
            assert torch.equal(conv.step(x[:, token], tail), conv(x[:, token : token + 1], tail=tail)[:, 0])
            out, after = conv.advance(x[:, token], tail, activation="silu")
            assert (after is tail) != gradients or not tail.numel()
            parts.append(out[:, None])
            tail = after
    torch.testing.assert_close(torch.cat(parts, dim=1).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(tail, x[:, 41 - width :])


def test_a_gradient_reaches_the_tail(by_kernel: None) -> None:
    torch.manual_seed(0)
    conv, x, tail = ShortConv(6, 4), torch.randn(1, 5, 6), torch.randn(1, 3, 6, requires_grad=True)
    conv(x, tail=tail).square().sum().backward()
    assert tail.grad is not None
    wanted = tail.detach().double().requires_grad_()
    plain(x.double(), conv.weight.detach().double(), tail=wanted).square().sum().backward()
    torch.testing.assert_close(tail.grad.double(), wanted.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", [0, 31, 32, 60])
def test_the_past_does_not_see_the_future(at: int) -> None:
    x, weight = inputs(64, 4)
    changed = x.clone()
    changed[:, at] += 100.0
    before, after = (launch_conv.conv(y, weight, None, None, "silu") for y in (x, changed))
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.equal(before[:, at:], after[:, at:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_inputs_with_float32_weights(dtype: torch.dtype, poisoned: None) -> None:
    x, weight = inputs(40, 4)
    out = launch_conv.conv(x.to(dtype), weight, None, None, "silu")
    assert out.dtype == dtype
    expected = plain(x.to(dtype).double(), weight.double(), "silu").to(dtype)
    torch.testing.assert_close(out, expected)


def test_nothing_to_do() -> None:
    weight = torch.ones(4, 8, requires_grad=True)
    out = launch_conv.conv(torch.ones(2, 0, 8, requires_grad=True), weight, None, None, "silu")
    assert out.shape == (2, 0, 8)
    out.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_the_ops_keep_the_rules_of_custom_ops() -> None:
    x, weight = inputs(9, 4, channels=8)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
    arguments = (x.requires_grad_(), weight.requires_grad_(), None, torch.arange(9).expand(2, 9), "silu")
    torch.library.opcheck(launch_conv.conv, arguments, test_utils=tests)
    torch.library.opcheck(
        launch_conv.conv_token, (x.detach()[:, 0], weight.detach(), torch.randn(2, 3, 8), "none"), test_utils=tests
    )


def test_too_wide_a_convolution_says_so(by_kernel: None) -> None:
    with pytest.raises(KernelUnavailableError, match="short_conv: head_dim = 17 has no Triton configuration"):
        ShortConv(4, 17)(torch.ones(1, 3, 4))


def test_float64_stays_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = inputs(9, 4)
    expected = plain(x.double(), weight.double())
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    assert torch.equal(plain(x.double(), weight.double()), expected)
    assert plain(x, weight).dtype == torch.float32
