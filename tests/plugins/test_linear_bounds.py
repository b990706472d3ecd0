"""HGRN2's trained lower bounds: the published ones, from layer to layer, and their start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.linear.gates import TrainedForgetDecay
from torch import Tensor
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import Context, HybridLM
from archsearch.registry import Registry

MODEL = ModelSpec(d_model=24, n_heads=3, head_dim=8, vocab_size=30, channel_mixer="none")


def gates_of(pattern: str, installed: Registry) -> dict[int, TrainedForgetDecay]:
    model = HybridLM(ArchSpec.parse(pattern, installed, MODEL), installed)
    mixers = {index: block.mixer for index, block in enumerate(model.blocks)}
    return {index: one.decay for index, one in mixers.items() if hasattr(one, "decay")}  # type: ignore[misc]


def bounds(gates: dict[int, TrainedForgetDecay]) -> dict[int, Tensor]:
    """What the forget gates `[H, K]` of the layers are at least, in one pass."""
    ctx, low = Context(), torch.full((24,), -200.0)
    return {index: gate.of(low, ctx)[0].exp().flatten() for index, gate in gates.items()}


@pytest.mark.parametrize("pattern", ["hgrn2*5", "full hgrn2 kda hgrn2 hgrn2", "full full full full hgrn2"])
def test_they_start_at_the_layers_place(pattern: str, installed: Registry) -> None:
    """All logits alike, a cumulative softmax gives l / L in layer l of L (arXiv 2404.07904, section 3)."""
    gates = {index: gate for index, gate in gates_of(pattern, installed).items() if hasattr(gate, "bound")}
    for index, bound in bounds(gates).items():
        assert_close(bound, torch.full((24,), index / 5), rtol=1e-6, atol=1e-7)


def test_every_published_bound_is_reached(installed: Registry) -> None:
    """The cumulative softmax over the layers of any logits, without the first layer's share."""
    gates = gates_of("hgrn2*4", installed)
    shares = torch.randn(4, 24, dtype=torch.float64).softmax(0)
    published = shares.cumsum(0) - shares[0]
    for index in (1, 2, 3):
        share = shares[index] / (1 - published[index - 1])
        start = torch.tensor(1 / (4 - index), dtype=torch.float64).log()
        gates[index].bound.data.copy_(share.logit() - start)  # type: ignore[union-attr]
    found = bounds(gates)
    for index in range(4):
        assert_close(found[index], published[index].float(), rtol=1e-5, atol=1e-6)
    assert all((found[index] <= found[index + 1]).all() for index in range(3))


def test_the_bound_of_a_layer_learns_by_later_ones(installed: Registry) -> None:
    arch = ArchSpec.parse("hgrn2 hgrn2 full hgrn2", installed, MODEL)
    torch.manual_seed(0)
    model, tokens = HybridLM(arch, installed).train(), torch.randint(30, (2, 12))
    first, last = model.blocks[1].mixer.decay.bound, model.blocks[3].mixer.decay  # type: ignore[union-attr]
    ctx = Context()
    ctx.share(model.blocks[1].mixer.layer, TrainedForgetDecay.NAME, (-first).sigmoid())  # type: ignore[union-attr, arg-type, operator]
    last.of(torch.randn(24), ctx)[0].sum().backward()  # type: ignore[union-attr, operator]
    assert first.grad.abs().min() > 0  # type: ignore[union-attr]
    model(tokens, ctx=Context()).square().mean().backward()
    assert {name for name, weights in model.named_parameters() if weights.grad is None} == set()


def test_prefill_then_steps_have_the_bounds_of_a_pass(installed: Registry) -> None:
    torch.manual_seed(0)
    model: Any = HybridLM(ArchSpec.parse("hgrn2*3", installed, MODEL), installed).eval()
    for block in model.blocks[1:]:
        torch.nn.init.normal_(block.mixer.decay.bound, std=2)
    tokens = torch.randint(30, (2, 14))
    with torch.no_grad():
        whole = model(tokens)
        logits, states = model.prefill(tokens[:, :10], model.init_state(2, 14))
        for token in range(10, 14):
            assert_close(logits, whole[:, token - 1], rtol=1e-4, atol=1e-4)
            logits, states = model.step(tokens[:, token], states)


def test_its_fixed_form_is_as_it_was(installed: Registry) -> None:
    assert installed.layer("hgrn2").options.decay_form == "hgrn2-trained"  # type: ignore[attr-defined]
    fixed = gates_of("hgrn2(decay_form=hgrn2)*4", installed)
    for index, gate in fixed.items():
        assert_close(gate(torch.full((24,), -200.0))[0].exp(), torch.full((3, 8), index / 4))
