"""The width of a layer's own channel mixer: notation, JSON, digests, costs, the model, and what it goes with."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.costs import CostModel
from archsearch.errors import NotationError, SpecError
from archsearch.layer import LayerSpec
from archsearch.options import MixerOptions
from archsearch.registry import Registry

PATTERN = "[kda:ffn_dim=0 [sliding(window=8):ffn_dim=64]*2]*2 full"
SIZES = {"d_model": 32, "n_heads": 2, "vocab_size": 50, "ffn_dim": 96, "n_experts": 4, "dtype": "float32"}


def parse(pattern: str, registry: Registry, channel: str = "swiglu", **values: Any) -> ArchSpec:
    return ArchSpec.parse(pattern, registry, ModelSpec.read({**SIZES, "channel_mixer": channel, **values}))


@pytest.mark.parametrize("channel", ["swiglu", "moe"])
def test_a_layers_own_width_is_written_and_read(channel: str, registry: Registry) -> None:
    arch = parse(PATTERN, registry, channel)
    assert arch.pattern(registry) == PATTERN
    assert ArchSpec.parse(arch.pattern(), registry, arch.model) == arch
    again = ArchSpec.from_json(json.loads(json.dumps(arch.to_json())), registry)
    assert (again, again.digest) == (arch, arch.digest)
    assert pickle.loads(pickle.dumps(arch)) == arch
    assert [layer.ffn_dim for layer in arch.layers] == [0, 64, 64, 0, 64, 64, None]


class Options(MixerOptions):
    window: int = 8


# digests as databases hold them, of before layers had widths
STORED: list[tuple[tuple[int, ...], dict[str, Any], str]] = [
    ((8, 4, 8), {}, "732a12d9c651545e"),
    ((4,), {"channel_mixer": "moe", "n_experts": 4}, "2b233fb0c50ee272"),
    ((8, 8), {"channel_mixer": "none", "meta_tokens": 4, "short_conv": 4}, "6ae500b5e63fba81"),
]


@pytest.mark.parametrize(("windows", "values", "digest"), STORED, ids=["swiglu", "moe", "none"])
def test_an_architecture_without_own_widths_keeps_its_digest(
    windows: tuple[int, ...], values: dict[str, Any], digest: str
) -> None:
    layers = tuple(LayerSpec(mixer="window", options=Options(window=window)) for window in windows)
    arch = ArchSpec(model=ModelSpec.read(values), layers=layers)
    assert arch.digest == digest
    assert all(layer.keys() == {"mixer", "options"} for layer in arch.to_json()["layers"])


def test_a_width_is_part_of_the_digest_unless_it_is_the_backbones(registry: Registry) -> None:
    plain = parse("full", registry)
    assert parse("full:ffn_dim=96", registry) == plain
    assert parse("full:ffn_dim=96", registry).digest == plain.digest
    assert parse("full:ffn_dim=95", registry).digest != plain.digest
    assert parse("full:ffn_dim=96", registry, "moe").pattern(registry) == "full"  # two experts of 48
    assert parse("full:ffn_dim=0", registry, "none").pattern(registry) == "full"


@pytest.mark.parametrize("channel", ["swiglu", "moe"])
def test_parameters_and_matrix_products_are_those_of_the_model(channel: str, registry: Registry) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from archsearch.model import HybridLM

    archs = [parse(text, registry, channel) for text in ("full*3", "full full:ffn_dim=0 full:ffn_dim=64")]
    tokens, counted = torch.zeros(1, 8, dtype=torch.int64), []
    costs = [CostModel(registry).cost(arch, 8) for arch in archs]
    for arch, cost in zip(archs, costs, strict=True):
        built = HybridLM(arch, registry)
        assert cost.params == sum(parameter.numel() for parameter in built.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            built(tokens)
        counted.append(counter.get_total_flops())
    assert (costs[0].train.matmul - costs[1].train.matmul) / 3 == pytest.approx(counted[0] - counted[1])
    plain, none, narrow = costs[1].layers
    assert plain == costs[0].layers[0]
    assert none.params < narrow.params < plain.params
    assert (narrow.active_params < narrow.params) == (channel == "moe")


@pytest.mark.parametrize("channel", ["swiglu", "moe"])
def test_a_model_of_several_widths_decodes_as_it_reads(channel: str, registry: Registry) -> None:
    import torch

    from archsearch.model import HybridLM

    torch.manual_seed(0)
    model = HybridLM(parse("sliding(window=4):ffn_dim=0 kda:ffn_dim=32 full", registry, channel), registry).eval()
    tokens = torch.randint(0, 50, (2, 9))
    whole, states = model(tokens), model.init_state(2, 9)
    logits, states = model.prefill(tokens[:, :6], states)
    torch.testing.assert_close(logits, whole[:, 5], atol=1e-4, rtol=1e-4)
    for position in range(6, 9):
        logits, states = model.step(tokens[:, position], states)
        torch.testing.assert_close(logits, whole[:, position], atol=1e-4, rtol=1e-4)


REFUSED = {
    "no channel mixer": ("full full:ffn_dim=64", "none", r"layer 1: ffn_dim = 64: the backbone has channel_mixer"),
    "uneven": ("full:ffn_dim=63", "moe", "layer 0: ffn_dim = 63: 2 experts of a token cannot share it out evenly"),
    "too many": ("full:ffn_dim=16777216", "moe", "layer 0: ffn_dim = 16777216: .*lower expert_dim"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_width_that_goes_with_no_such_backbone_is_refused(case: str, registry: Registry) -> None:
    pattern, channel, said = REFUSED[case]
    arch = parse(pattern, registry, channel)
    with pytest.raises(SpecError, match=said):
        raise SpecError(str(refusal(arch, registry)))
    with pytest.raises(SpecError, match="ffn_dim"):
        CostModel(registry).cost(arch, 8)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("full:", 5, 'expected ffn_dim after ":"'),
        ("full:window=4", 5, 'expected ffn_dim after ":"'),
        ("full:ffn_dim", 12, 'expected "="'),
        ("full:ffn_dim=wide", 13, "expected a number"),
        ("full:ffn_dim=1.5", 0, "ffn_dim = 1.5: must be a whole number"),
        ("full full:ffn_dim=-1", 5, "ffn_dim = -1"),
        ("full:ffn_dim=16777217", 0, "to 16777216"),
    ],
)
def test_a_width_that_is_none_is_pointed_at(text: str, position: int, said: str, registry: Registry) -> None:
    with pytest.raises(NotationError, match=said) as caught:
        parse(text, registry)
    assert caught.value.position == position


def test_a_stored_width_that_is_none_is_refused(registry: Registry) -> None:
    with pytest.raises(SpecError, match="ffn_dim = True"):
        ArchSpec.from_json({"layers": [{"mixer": "full", "ffn_dim": True}]}, registry)
