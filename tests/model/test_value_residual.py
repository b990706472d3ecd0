"""The value residual in a model: v of a layer is mixed with the first layer's, in training, prefill and decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import PluginError
from archsearch.layer import LayerInfo
from archsearch.model import Context, HybridLM
from archsearch.model.block_calls import training_calls
from archsearch.model.value_residual import ValueResidual
from archsearch.registry import Registry

PATTERNS = [
    "full sliding(window=4) full",
    "kda full kda full(qk_norm=true, output_gate=true)",
    "parallel(a=full, b=mamba1) ttt-linear parallel(a=full, b=mamba1) titans mamba3 mamba3",
    "shared-kv shared full(weighting=forgetting) indexed(top_k=4)",
]


def build(pattern: str, registry: Registry, kind: str, **model: Any) -> HybridLM:
    values = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "channel_mixer": "none", **model}
    torch.manual_seed(0)
    spec = ModelSpec.read({**values, "dtype": "float32", "value_residual": kind})
    return HybridLM(ArchSpec.parse(pattern, registry, spec), registry).eval()


def tokens_of(batch: int, count: int) -> Tensor:
    return torch.randint(0, 40, (batch, count), generator=torch.Generator().manual_seed(1))


def weights_of(model: HybridLM) -> dict[str, Tensor]:
    return {name: weights for name, weights in model.named_parameters() if "value_residual" in name}


@torch.no_grad()
def test_the_identity_form_attends_with_the_mean_of_both_values(installed: Registry) -> None:
    """ResFormer, arXiv 2410.17897: v'_l = (v_1 + v_l) / 2 in every layer after the first."""
    model, tokens = build("full full full", installed, "identity"), tokens_of(2, 9)
    attended: list[Tensor] = []
    projected: list[Tensor] = []
    for block in model.blocks:
        mixer: Any = block.mixer
        attend, project = mixer.attend, mixer.project
        mixer.attend = lambda q, k, v, cu, attend=attend: attended.append(v) or attend(q, k, v, cu)
        mixer.project = lambda x, at, project=project: projected.append(project(x, at)) or projected[-1]
    model(tokens)
    values = [v for _, _, v in projected]
    torch.testing.assert_close(attended, [values[0], *((values[0] + v) / 2 for v in values[1:])])


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_with_weight_0_of_the_first_values_the_model_is_the_plain_one(pattern: str, installed: Registry) -> None:
    plain, mixed = (build(pattern, installed, kind) for kind in ("none", "learned"))
    assert set(mixed.state_dict()) - set(plain.state_dict()) == set(weights_of(mixed)) != set()
    assert not torch.allclose(mixed(tokens_of(2, 12)), plain(tokens_of(2, 12)))
    for weights in weights_of(mixed).values():
        assert weights.tolist() == [0.5, 0.5]
        weights.copy_(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(mixed(tokens_of(2, 12)), plain(tokens_of(2, 12)))


@pytest.mark.parametrize("meta", [0, 3], ids=["plain", "meta3"])
@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_decoding_is_the_forward_pass(pattern: str, meta: int, installed: Registry) -> None:
    model, tokens = build(pattern, installed, "learned", meta_tokens=meta, short_conv=4), tokens_of(2, 15)
    whole = model(tokens)
    logits, states = model.prefill(tokens[:, :6], model.init_state(2, 15))
    torch.testing.assert_close(logits, whole[:, 5], atol=1e-4, rtol=1e-4)
    logits, states = model.prefill(tokens[:, 6:10], states)
    for place in range(10, 15):
        logits, states = model.step(tokens[:, place], states)
        torch.testing.assert_close(logits, whole[:, place], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_packed_sequences_take_their_own_first_values(pattern: str, installed: Registry) -> None:
    model, lengths = build(pattern, installed, "learned"), [5, 0, 1, 9]
    tokens = tokens_of(1, sum(lengths))
    packed = model(tokens, ctx=Context(cu_seqlens=torch.tensor([0, *lengths]).cumsum(0)))
    alone = torch.cat([model(piece) for piece in tokens.split(lengths, dim=1) if piece.shape[1]], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["identity", "learned"])
def test_what_is_built_is_what_is_counted(kind: str, installed: Registry) -> None:
    model = build("full kda full kda mla none", installed, kind)
    assert sum(weights.numel() for weights in model.parameters()) == CostModel(installed).cost(model.arch, 8).params
    assert [name.split(".")[1] for name in weights_of(model)] == ["2", "3"] * (kind == "learned")


def test_a_block_that_is_computed_twice_gives_the_first_layer_the_same_gradient(installed: Registry) -> None:
    model, tokens, found = build(PATTERNS[0], installed, "learned").train(), tokens_of(2, 10), []
    for calls in (None, training_calls(model, compiled=False, checkpointed=True)):
        model.training_calls = calls
        model.zero_grad()
        model(tokens).square().mean().backward()
        found.append(
            {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None}
        )
    assert found[0].keys() == found[1].keys() >= set(weights_of(model))
    torch.testing.assert_close(found[0], found[1])


def test_values_of_another_shape_are_refused_with_both() -> None:
    ctx, residual = Context(), ValueResidual(LayerInfo(index=2, depth=3), (0, ""))
    ctx.share(LayerInfo(index=0, depth=3), "values", torch.zeros(1, 4, 2, 8))
    with pytest.raises(PluginError, match=r"layer 2 has values \[1, 4, 1, 8\] and layer 0 shared \[1, 4, 2, 8\]"):
        residual(torch.zeros(1, 4, 1, 8), ctx)


def test_learned_weights_keep_a_low_precision(installed: Registry) -> None:
    model = build("full kda full kda", installed, "learned").to(torch.bfloat16)
    with torch.no_grad():
        assert model(tokens_of(1, 8)).dtype == torch.bfloat16
