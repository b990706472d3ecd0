"""The gated short convolution: its sum written out, its reach, and the backbone's convolution that gives way to it."""

from __future__ import annotations

import pytest
import torch

from archsearch import cost
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import figures_of
from archsearch.layer import LayerSpec
from archsearch.model import Context, HybridLM
from archsearch.registry import load_registry
from archsearch.testing.products import products

_REGISTRY = load_registry()
_MODEL = ModelSpec(d_model=16, n_heads=2, n_kv_heads=2, short_conv=4, channel_mixer="none")


def layer_of(text: str) -> torch.nn.Module:
    torch.manual_seed(0)
    arch = ArchSpec(model=_MODEL, layers=(_REGISTRY.layer(text),))
    return HybridLM(arch, _REGISTRY, vocab_size=11).blocks[0].mixer  # type: ignore[union-attr, return-value]


@pytest.mark.parametrize("width", [1, 3, 5])
def test_it_is_the_sum_that_it_says(width: int) -> None:
    layer, x = layer_of(f"conv(width={width})"), torch.randn(2, 9, 16)
    weights = {name: part.detach() for name, part in layer.named_parameters()}
    b, c, u = (x @ part.T for part in weights["project.weight"].chunk(3))
    taps = weights["conv.weight"]
    for t in range(9):
        held = sum((taps[i] * b[:, t - i] * u[:, t - i] for i in range(min(width, t + 1))), torch.zeros(2, 16))
        wanted = (c[:, t] * held) @ weights["out.weight"].T
        torch.testing.assert_close(layer(x, ctx=Context())[0][:, t], wanted)


@pytest.mark.parametrize("width", [1, 3])
def test_its_matrix_products_are_those_that_are_counted(width: int) -> None:
    arch, x = ArchSpec.parse(f"conv(width={width})", _REGISTRY, _MODEL), torch.randn(1, 9, 16)
    figures, mixer = figures_of(arch.layers[0], arch, 0, _REGISTRY), layer_of(f"conv(width={width})")
    counted = products(lambda: mixer(x, ctx=Context()))
    assert figures.flops(phase="prefill", context=9).matmul == figures.flops(phase="train", context=9).matmul == counted


def test_it_sees_as_many_tokens_as_it_is_wide() -> None:
    layer, x = layer_of("conv(width=3)"), torch.randn(1, 9, 16, requires_grad=True)
    layer(x, ctx=Context())[0][0, 6].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum(-1).ne(0).tolist() == [4 <= t <= 6 for t in range(9)]


@pytest.mark.parametrize(("mixer", "stands"), [("conv", False), ("none", False), ("full", True)])
def test_the_backbones_convolution_gives_way(mixer: str, stands: bool) -> None:
    arch = ArchSpec(model=_MODEL, layers=(LayerSpec.make(mixer, _REGISTRY),))
    model = HybridLM(arch, _REGISTRY, vocab_size=_MODEL.vocab_size)
    said, plain = (
        cost(ArchSpec(model=_MODEL.model_copy(update={"short_conv": width}), layers=arch.layers), context=64)
        for width in (4, 0)
    )
    assert (model.blocks[0].conv is not None) is stands  # type: ignore[union-attr]
    assert said.params == sum(weights.numel() for weights in model.parameters())
    assert said.state_bytes - plain.state_bytes == (3 * 16 * 2 if stands else 0)
    assert said.decode_flops - plain.decode_flops == (2 * 4 * 16 if stands else 0)
    assert (model.init_state(1, 8)[0].tail is not None) is stands


def test_no_mixing_leaves_the_stream_and_costs_its_norm() -> None:
    arch = ArchSpec(model=_MODEL, layers=(LayerSpec.make("none", _REGISTRY),))
    model, tokens = HybridLM(arch, _REGISTRY, vocab_size=11), torch.randint(11, (2, 5))
    torch.testing.assert_close(
        model(tokens), torch.nn.functional.linear(model.norm(model.embedding(tokens)), model.embedding.weight)
    )
    said = cost(arch, context=64)
    assert (said.kv_bytes, said.state_bytes, said.decode_read_bytes) == (0, 0, 0)
    assert said.layers[0].mixer_params == 0
