"""The language model: forward, prefill, step and generate agree; channel mixers; packed batches."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.model import Context, HybridLM
from archsearch.registry import Registry

PATTERN = "full sliding(window=5, sinks=1) kda moba(block_size=4, top_k=2) nsa(block_size=4, top_k=2, window=4) mamba2"


def build(registry: Registry, pattern: str = PATTERN, **model: object) -> HybridLM:
    """A small model in float32."""
    torch.manual_seed(0)
    values = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "channel_mixer": "none", **model}
    spec = ModelSpec.read({**values, "dtype": "float32"})
    return HybridLM(ArchSpec.parse(pattern, registry, spec), registry).eval()


@pytest.mark.parametrize("channel", ["none", "swiglu", "moe"])
@pytest.mark.parametrize("short_conv", [0, 4], ids=["no-conv", "conv4"])
def test_forward_is_prefill_and_steps(channel: str, short_conv: int, registry: Registry) -> None:
    model = build(registry, channel_mixer=channel, short_conv=short_conv)
    tokens = torch.randint(0, 40, (2, 19), generator=torch.Generator().manual_seed(1))
    whole = model(tokens)
    states = model.init_state(2, 19)
    logits, states = model.prefill(tokens[:, :7], states)
    torch.testing.assert_close(logits, whole[:, 6], atol=1e-4, rtol=1e-4)
    logits, states = model.prefill(tokens[:, 7:12], states)
    torch.testing.assert_close(logits, whole[:, 11], atol=1e-4, rtol=1e-4)
    for position in range(12, 19):
        logits, states = model.step(tokens[:, position], states)
        torch.testing.assert_close(logits, whole[:, position], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("short_conv", [0, 4], ids=["no-conv", "conv4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_states_hold_the_bytes_that_are_costed(short_conv: int, dtype: torch.dtype, registry: Registry) -> None:
    model = build(registry, short_conv=short_conv)
    name = str(dtype).removeprefix("torch.")
    arch = ArchSpec(model=model.arch.model.model_copy(update={"dtype": name}), layers=model.arch.layers)
    arch = ArchSpec(model=ModelSpec.read(arch.model.model_dump()), layers=arch.layers)
    states = model.init_state(3, 23, dtype=dtype)
    assert sum(state.nbytes for state in states) == 3 * CostModel(registry).cost(arch, 23).state_bytes


def test_packed_sequences_do_not_see_each_other(registry: Registry) -> None:
    model = build(registry, short_conv=4)
    tokens = torch.randint(0, 40, (1, 20), generator=torch.Generator().manual_seed(2))
    bounds = [0, 7, 7, 8, 20]
    packed = model(tokens, ctx=Context(cu_seqlens=torch.tensor(bounds)))
    for start, end in pairwise(bounds):
        if end > start:
            torch.testing.assert_close(packed[:, start:end], model(tokens[:, start:end]), atol=1e-4, rtol=1e-4)


def test_embeddings_are_tied_and_start_at_one_over_root_width(registry: Registry) -> None:
    model = build(registry, "full", d_model=256, vocab_size=2000)
    assert model.embedding.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert not [name for name, _ in model.named_parameters() if "head" in name]


def test_generate_is_greedy_or_sampled(registry: Registry) -> None:
    model = build(registry)
    prompt = torch.randint(0, 40, (2, 5), generator=torch.Generator().manual_seed(3))
    greedy = model.generate(prompt, 6)
    sequence = prompt
    for _ in range(6):
        sequence = torch.cat([sequence, model(sequence)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(greedy, sequence[:, 5:])
    sampled = [
        model.generate(prompt, 6, temperature=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.equal(sampled[0], sampled[2])
    assert model.generate(prompt, 0).shape == (2, 0)


def test_a_full_state_says_so(registry: Registry) -> None:
    model = build(registry, "full")
    states = model.init_state(1, 4)
    with pytest.raises(SpecError, match="capacity of 4"):
        model.prefill(torch.zeros(1, 5, dtype=torch.int64), states)
    with pytest.raises(SpecError, match="prompt"):
        model.generate(torch.zeros(1, 0, dtype=torch.int64), 1)


def test_mixture_of_experts_balances_through_the_context(registry: Registry) -> None:
    model = build(registry, "full full", channel_mixer="moe", n_experts=4).train()
    ctx = Context()
    model(torch.randint(0, 40, (2, 16)), ctx=ctx)
    per_layer = model.blocks[0].channel.balance_weight  # type: ignore[union-attr]
    assert ctx.losses["moe_balance"].item() >= 0.99 * 2 * per_layer
    ctx.losses["moe_balance"].backward()
    assert model.blocks[1].channel.router.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_mixture_of_experts_is_its_written_out_sum(registry: Registry) -> None:
    model = build(registry, "full", channel_mixer="moe", n_experts=4, experts_per_token=2)
    moe = model.blocks[0].channel
    x = torch.randn(5, 32)
    scores = moe.router(x).softmax(-1)  # type: ignore[union-attr, operator]
    expected = sum(expert(x, Context()) for expert in moe.shared)  # type: ignore[union-attr]
    for token in range(5):
        for expert in scores[token].topk(2).indices:
            routed = moe.experts[int(expert)](x[token], Context())  # type: ignore[union-attr, index]
            expected[token] += scores[token, expert] * routed
    torch.testing.assert_close(moe(x, Context()), expected)  # type: ignore[operator]


@pytest.mark.parametrize("channel", ["none", "swiglu", "moe"])
def test_every_parameter_learns(channel: str, registry: Registry) -> None:
    model = build(registry, channel_mixer=channel, short_conv=4, n_experts=2).train()
    model(torch.randint(0, 40, (4, 32))).logsumexp(-1).mean().backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not still
