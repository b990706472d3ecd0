"""Layers made of layers, values shared between layers, meta tokens and teachers, in every form of a pass."""

from __future__ import annotations

import pytest
import torch
from stand_ins import Giving, ManyPlugin, PairPlugin, Taking

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import KernelUnavailableError, PluginError, SpecError
from archsearch.layer import LayerInfo
from archsearch.model import Context, HybridLM
from archsearch.model.recorded import RecordedTeacher
from archsearch.ops.cached import cached_attention
from archsearch.registry import Registry, load_registry

REGISTRY = load_registry([PairPlugin(), ManyPlugin(), Giving(), Taking()])
PATTERNS = [
    "pair kda",
    "many(of=[full pair(a=moba(block_size=4, top_k=2), b=nsa(block_size=4, top_k=2, window=4))]) full",
    "giving full taking giving taking",
    "giving many(of=[taking kda]) sliding(window=3)",
]


def build(pattern: str, registry: Registry = REGISTRY, **model: object) -> HybridLM:
    """A small model in float32."""
    torch.manual_seed(0)
    values = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "channel_mixer": "none", **model}
    spec = ModelSpec.read({**values, "dtype": "float32"})
    return HybridLM(ArchSpec.parse(pattern, registry, spec), registry).eval()


def tokens_of(batch: int, count: int) -> torch.Tensor:
    """The same for the same sizes."""
    return torch.randint(0, 40, (batch, count), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("meta", [0, 3], ids=["plain", "meta3"])
@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_forward_is_prefill_and_steps(pattern: str, meta: int) -> None:
    model, tokens = build(pattern, meta_tokens=meta, short_conv=4), tokens_of(2, 15)
    whole = model(tokens)
    logits, states = model.prefill(tokens[:, :6], model.init_state(2, 15))
    torch.testing.assert_close(logits, whole[:, 5], atol=1e-4, rtol=1e-4)
    logits, states = model.prefill(tokens[:, 6:10], states)
    torch.testing.assert_close(logits, whole[:, 9], atol=1e-4, rtol=1e-4)
    for place in range(10, 15):
        logits, states = model.step(tokens[:, place], states)
        torch.testing.assert_close(logits, whole[:, place], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("meta", [0, 3], ids=["plain", "meta3"])
@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_packed_sequences_are_each_apart(pattern: str, meta: int) -> None:
    model, lengths = build(pattern, meta_tokens=meta, short_conv=4), [5, 0, 1, 9]
    tokens = tokens_of(1, sum(lengths))
    packed = model(tokens, ctx=Context(cu_seqlens=torch.tensor([0, *lengths]).cumsum(0)))
    apart = [model(part) for part in torch.split(tokens, lengths, dim=1) if part.shape[1]]
    torch.testing.assert_close(packed, torch.cat(apart, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_meta_tokens_take_the_first_positions() -> None:
    model, tokens = build("full full", meta_tokens=3), tokens_of(2, 7)
    given = Context(positions=torch.arange(7).expand(2, -1))
    torch.testing.assert_close(model(tokens, ctx=given), model(tokens))
    lengths = torch.tensor([0, 4, 7])
    packed = Context(cu_seqlens=lengths)
    order = Context(cu_seqlens=lengths, positions=packed.order_of(tokens[:1]))
    torch.testing.assert_close(model(tokens[:1], ctx=order), model(tokens[:1], ctx=packed))


def test_meta_tokens_are_learnt() -> None:
    model = build("full kda", meta_tokens=2)
    model(tokens_of(1, 5)).sum().backward()
    assert model.meta is not None
    assert model.meta.weight.grad is not None
    assert (model.meta.weight.grad.abs().amax(-1) > 0).all()


def test_what_is_shared_belongs_to_one_pass_and_one_layer() -> None:
    ctx, first, second = Context(), LayerInfo(index=0, depth=2), LayerInfo(index=1, depth=2)
    ctx.share(first, "keys", 1)
    ctx.share(second, "keys", 2)
    assert (ctx.shared_by(0, "keys"), ctx.shared_by(1, "keys")) == (1, 2)
    with pytest.raises(PluginError, match='layer 0 shares "keys" twice in one pass'):
        ctx.share(first, "keys", 3)
    with pytest.raises(PluginError, match=r'layer 3 has shared no "keys" in this pass: .* keys of layer 0, keys of'):
        ctx.shared_by(3, "keys")
    ctx.share(first.part_at(1).part_at(0), "keys", 3)
    assert ctx.shared_by(0, "1.0.keys") == 3
    del ctx.shared[0, "1.0.keys"]
    build("many(of=[giving giving])")(tokens_of(1, 4))
    model = build("giving taking")
    for _ in range(2):
        model(tokens_of(1, 4), ctx=ctx)
    assert set(ctx.shared) == {(0, "keys"), (1, "keys")}


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
def test_a_teacher_says_what_it_attends_to(packed: bool) -> None:
    model = build("full(rope=0.5) sliding(window=3) full(n_kv_heads=1, qk_norm=true)")
    model.train()
    tokens = tokens_of(1 if packed else 2, 9)
    ctx = Context(cu_seqlens=torch.tensor([0, 4, 4, 9])) if packed else Context()
    teacher = RecordedTeacher(model, tokens, ctx=ctx)
    assert model.training
    assert teacher.attention(1) is None
    assert teacher.attention(3) is None
    for layer in (0, 2):
        weights = teacher.attention(layer)
        assert weights is not None
        assert weights.shape == (len(tokens), 9, 9)
        assert not weights.requires_grad
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(tokens), 9))
        assert (weights.triu(1) == 0).all()
        assert not packed or (weights[:, 4:, :4] == 0).all()
    output = teacher.output(1)
    assert output is not None
    assert output.shape == (len(tokens), 9, 32)


@torch.no_grad()
def test_what_a_teacher_says_is_what_full_attention_does() -> None:
    model = build("full(n_kv_heads=1)", n_heads=1, n_kv_heads=1)
    tokens = tokens_of(2, 9)
    teacher, block = RecordedTeacher(model, tokens), model.blocks[0]
    x = block.mixer_norm(model.embedding(tokens))
    _, _, v = block.mixer.project(x, Context().positions_of(x))
    weights = teacher.attention(0)
    assert weights is not None
    torch.testing.assert_close(
        block.mixer.output(weights[:, :, None, :] @ v.movedim(1, 2)[:, None, 0]), teacher.output(0)
    )


@pytest.mark.parametrize("mixer", ["full", "sliding", "moba", "nsa", "kda", "pair"])
def test_packed_sequences_cannot_share_a_state(mixer: str) -> None:
    block = build(f"{mixer} full").blocks[0]
    packed, x = torch.tensor([0, 2, 5]), torch.randn(1, 5, 32)
    for state, wanted in ((None, True), (block.mixer.init_state(1, 9), False)):
        with pytest.raises(SpecError, match=r"packed sequences .* cannot share a state"):
            block.mixer(x, state=state, ctx=Context(cu_seqlens=packed, want_state=wanted))


def test_a_cache_is_attended_without_a_table_of_kernels() -> None:
    q, k, v = torch.randn(2, 4, 8), torch.randn(2, 6, 2, 8), torch.randn(2, 6, 2, 8)
    lengths = torch.tensor([3, 6])
    plain, exact = (cached_attention(q, k, v, lengths, impl=impl) for impl in ("auto", "reference"))
    torch.testing.assert_close(plain, exact)
    with pytest.raises(KernelUnavailableError, match="cached_attention"):
        cached_attention(q, k, v, lengths, impl="triton")
