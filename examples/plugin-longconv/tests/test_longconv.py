"""longconv keeps the laws of every mixer, and computes what the paper writes."""

from __future__ import annotations

import math

import pytest
import torch
from longconv import Plugin
from longconv.filter import FAST, SLOW, convolved
from longconv.layer import LongConv
from torch import Tensor

from archsearch import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing import MixerConformance
from archsearch.testing.products import products

PLUGIN, LAYER = Plugin(), LayerInfo(index=0, depth=1)
SHAPE = ModelShape(d_model=24, n_heads=2, n_kv_heads=2, head_dim=12, dtype="float32")


class TestLongConv(MixerConformance):
    plugin = PLUGIN


def layer_of(**options: float) -> LongConv:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(options), SHAPE, LAYER)


def by_tokens(layer: LongConv, x: Tensor) -> Tensor:
    """The equations of the README, token by token, `[T, D]` in float64."""
    options, weights = PLUGIN.parse_options({}), {name: value.double() for name, value in layer.named_parameters()}
    a, b, v = (x.double() @ part.T for part in weights["read.weight"].chunk(3))
    rates = [math.log(100) * (1 / SLOW + c / 23 * (1 / FAST - 1 / SLOW)) for c in range(24)]
    h = []
    for lag in range(len(x)):
        time = lag / options.reach
        angles = [2 * math.pi * k * time for k in range(1, options.bands + 1)]
        z = torch.tensor([time, *map(math.cos, angles), *map(math.sin, angles)], dtype=torch.float64)
        for i in range(3):
            inner = weights[f"filter.hidden.{i}.weight"] @ z + weights[f"filter.hidden.{i}.bias"]
            z = torch.sin(options.frequency * inner)
        window = torch.tensor([math.exp(-rate * time) for rate in rates], dtype=torch.float64)
        h.append(window * (weights["filter.last.weight"] @ z) + (weights["filter.skip"] if lag == 0 else 0.0))
    mixed = [sum(h[t - s] * a[s] * v[s] for s in range(t + 1)) for t in range(len(x))]
    return (b * torch.stack(mixed)) @ weights["out.weight"].T


def test_outputs_and_gradients_are_those_of_the_equations_in_float64() -> None:
    layer = layer_of()
    x = torch.randn(37, 24, requires_grad=True)
    found, wanted = layer(x[None], ctx=Context())[0][0], by_tokens(layer, x)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    probe = torch.randn(37, 24)
    gradients = [
        torch.autograd.grad((out * probe).sum(), (x, *layer.parameters()), retain_graph=True) for out in (found, wanted)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_identity_of_the_paper_the_operator_is_diagonal_times_toeplitz_times_diagonal() -> None:
    """Section 3.2: y = D_b S_h D_a v, a matrix that the input itself makes."""
    layer, x = layer_of(reach=16), torch.randn(2, 20, 24)
    a, b, v = layer.read(x).chunk(3, dim=-1)
    lags = torch.arange(20)[:, None] - torch.arange(20)
    toeplitz = torch.where((lags >= 0)[..., None], layer.filter(20)[lags.clamp(min=0)], 0.0)  # S_h, [T, T, C]
    matrix = b[:, :, None] * toeplitz * a[:, None]
    y = layer.out(torch.einsum("btsc,bsc->btc", matrix, v))
    torch.testing.assert_close(layer(x, ctx=Context())[0], y, rtol=1e-4, atol=1e-5)


def test_windows_fall_to_a_hundredth_where_they_should() -> None:
    window = layer_of().filter.window(torch.tensor([[0.0], [FAST], [SLOW]]))
    torch.testing.assert_close(window[0], torch.ones(24))
    torch.testing.assert_close((window[1, -1], window[2, 0]), (torch.tensor(0.01), torch.tensor(0.01)))


@pytest.mark.parametrize("tokens", [0, 1, 2, 63])
def test_a_convolution_by_fft_is_the_sum(tokens: int) -> None:
    u, h = torch.randn(2, tokens, 3, dtype=torch.float64), torch.randn(tokens, 3, dtype=torch.float64)
    wanted = torch.zeros_like(u)
    for lag in range(tokens):
        wanted[:, lag:] += h[lag] * u[:, : tokens - lag]
    torch.testing.assert_close(convolved(u, h), wanted)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_matrix_products_are_those_that_are_counted(phase: str) -> None:
    layer, x = layer_of(), torch.randn(1, 50, 24)
    said = PLUGIN.flops(layer.options, SHAPE, LAYER, phase=phase, context=50).matmul  # type: ignore[arg-type]
    _, state = layer(x[:, :49], state=layer.init_state(1, 50), ctx=Context())
    runs = {
        "prefill": lambda: layer(x, ctx=Context()),
        "decode": lambda: layer.step(x[:, 49], state=state, ctx=Context()),
    }
    assert products(runs[phase]) == said
