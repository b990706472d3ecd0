"""Layers that take an earlier layer's choice or latents: what they compute, what counts once, where they may stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin, SharedIndexPlugin
from torch import Tensor
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, HybridLM
from archsearch.ops import block_sparse
from archsearch.registry import Registry
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products
from archsearch.testing.stack import Stack

SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
MODEL = ModelSpec(d_model=32, n_heads=4, n_kv_heads=2, vocab_size=50, channel_mixer="none")
OWNER, TAKER = IndexedPlugin(), SharedIndexPlugin()
SMALL = "dsa-mla(top_k=5, kv_rank=12, shared_dim=4, index_heads=2, index_dim=6)"
LEARNED = SMALL[:-1] + ", query_scale=true, rope_learned=true, index_norm=true)"
"""Queries, frequencies and an index as Mistral-Large-4 has them."""
OTHERS = {
    "dsa": "dsa(top_k=5)",
    "qsa": "qsa(top_k=3)",
    "m3": "m3",
    "glm5-next": "glm5-next(top_k=3, kv_rank=12)",
    "topk": "topk(top_k=5)",
    "infllm": "infllm",
}


def stack(pattern: str, installed: Registry) -> Stack:
    """The layers of a pattern, each of the weights of a seed of its own."""
    layers = ArchSpec.parse(pattern, installed, MODEL).layers
    built = []
    for index, one in enumerate(layers):
        torch.manual_seed(index)
        place = LayerInfo(index=index, depth=len(layers), resolver=installed, pattern=layers)
        built.append(installed.mixer(one.mixer).build(one.options, SHAPE, place).eval())
    return Stack(built)


def alike(pattern: str, installed: Registry) -> Stack:
    """The same where every layer has the first one's weights, as far as it has such."""
    made = stack(pattern, installed)
    torch.manual_seed(9)
    for weights in made.layers[0].parameters():
        if weights.dim() == 1:
            torch.nn.init.normal_(weights, 1.0, 0.3)
    first = made.layers[0].state_dict()
    for layer in made.layers[1:]:
        layer.load_state_dict({name: first[name] for name in layer.state_dict()})
    return made


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize(
    ("source", "taker"),
    [
        *((SMALL, preset) for preset in (*TAKER.presets, "reindex(index_keys=own)")),
        *((LEARNED, preset) for preset in ("indexshare", "indexshare-latents", "reindex(index_keys=own)")),
        (f"{LEARNED} reindex(index_keys=own)", "indexshare-latents"),
        *((other, "indexshare") for other in OTHERS.values()),
        (OTHERS["glm5-next"], "reindex"),
        (f"{SMALL} indexshare-latents", "indexshare"),
        (f"{SMALL} reindex", "indexshare-latents"),
    ],
    ids=lambda one: one.partition("(")[0],
)
def test_with_the_sources_weights_it_is_the_source(
    source: str, taker: str, many: bool, installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that shares what it would choose and keep itself: equal in sequences, prompts and steps."""
    if many:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    made, x, ctx = alike(f"{source} {taker}", installed), torch.randn(2, 40, 32), Context()
    outputs = [layer(x, ctx=ctx)[0] for layer in made.layers]
    assert_close(outputs[-1], outputs[0], rtol=1e-5, atol=1e-6)
    state = made.init_state(2, 40)
    for start, end in ((0, 33), *((token, token + 1) for token in range(33, 40))):
        found, state = made(x[:, start:end], state=state, ctx=Context(want_state=True))
        assert_close(found, outputs[0][:, start:end], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taker", TAKER.presets)
def test_where_everything_is_chosen_it_is_full_attention_over_latents(taker: str, installed: Registry) -> None:
    """MLA, of the latents of the earlier layer where these are shared."""
    made = stack(f"dsa-mla(top_k=64, kv_rank=12, shared_dim=4) {taker}", installed)
    plain = installed.mixer("latent")
    theirs = plain.build(plain.parse_options({"kv_rank": 12, "shared_dim": 4, "rope": 1.0}), SHAPE, LayerInfo())
    own = made.own.state_dict()
    rows = own if "kv_down.weight" in own else made.layers[0].state_dict()
    names = {"q_up": own["q.weight"], "kv_up": own["kv_up.weight"], "out": own["out.weight"]}
    names |= {name: rows[f"{name}.weight"] for name in ("kv_down", "kv_norm")}
    theirs.load_state_dict({f"{name}.weight": weights for name, weights in names.items()})
    x, ctx = torch.randn(2, 30, 32), Context()
    assert_close(made(x, ctx=ctx)[0], theirs.eval()(x, ctx=Context())[0], rtol=1e-5, atol=1e-6)


def test_each_input_has_its_part(installed: Registry) -> None:
    """The choice is of the source's input alone, latents of whose they are, and queries of the layer's own."""
    x, y = torch.randn(1, 40, 32), torch.randn(1, 40, 32)
    made = stack(f"{SMALL} indexshare", installed)
    ctx = Context()
    made.layers[0](x, ctx=ctx)
    handed = ctx.shared[0, "index"][0]
    assert handed.choice.blocks.shape == (1, 1, 40, 6)
    assert handed.choice.scores is None
    seen = block_sparse.visible_keys(handed.choice.blocks, torch.arange(40)[None], 40, 1)[0, 0]
    own = made.own
    q, rows = own.made(y, y, torch.arange(40)[None])
    k, v = (one.transpose(1, 2) for one in own.attended(q, {"latent": rows["latent"]})[1:])
    logits = (q.transpose(1, 2) @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    o = (logits.softmax(-1) @ v).transpose(1, 2)[..., :8]
    assert_close(own(y, ctx=ctx)[0], own.out(o.flatten(2)), rtol=1e-5, atol=1e-6)


def test_bytes_and_flops_count_once(installed: Registry) -> None:
    costs = CostModel(installed)

    def cost(pattern: str) -> Any:
        return costs.cost(ArchSpec.parse(pattern, installed, MODEL), 1000)

    one, two = cost(SMALL), cost(f"{SMALL} {SMALL}")
    rows, keys = 16 * 2 * 1000, 6 * 2 * 1000  # of latents and of the index, bfloat16
    assert one.state_bytes == rows + keys
    assert cost(f"{SMALL} indexshare").state_bytes == 2 * rows + keys
    for taker in ("indexshare-latents", "reindex"):
        assert cost(f"{SMALL} {taker} {taker}").state_bytes == one.state_bytes
    own_keys = cost(f"{SMALL} reindex(index_keys=own)")
    assert own_keys.state_bytes == rows + 2 * keys
    shared = cost(f"{SMALL} indexshare")
    scored = 1000 * 2 * 2 * (6 + 1)  # a decoded token scores each key by two heads
    asked = 2 * (32 * 2 * 6 + 32 * 6 + 32 * 2)
    assert two.decode.matmul - shared.decode.matmul == scored + asked
    assert cost(f"{SMALL} reindex").decode.matmul - shared.decode.matmul == scored + asked - 2 * 32 * (6 + 16)
    assert two.decode.matmul - own_keys.decode.matmul == 2 * 32 * 16


@pytest.mark.parametrize(
    "pattern", [f"{SMALL} {taker}" for taker in (*TAKER.presets, "reindex(index_keys=own)")] + ["m3 indexshare"]
)
def test_matmul_flops_are_those_of_the_products(
    pattern: str, installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both layers of a decoded token: the choice is made once."""
    made, x = stack(pattern, installed), torch.randn(1, 64, 32)
    _, state = made(x[:, :-1], state=made.init_state(1, 64), ctx=Context(want_state=True))
    counted = products(lambda: made.step(x[:, -1], state=state, ctx=Context(want_state=True)))
    place: Any = {"phase": "decode", "context": 64}
    said = sum(
        layer.plugin.flops(layer.options, SHAPE, layer.layer, **place).matmul
        for layer in made.layers  # type: ignore[union-attr, operator, arg-type]
    )
    assert said == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("indexshare dsa-mla", "put dsa-mla in an earlier layer"),
        ("full shared-index", "there is none"),
        ("dsa indexshare-latents", "put dsa-mla there, or write latents=own"),
        ("topk shared-index(choice=own, latents=shared)", "no latents to share"),
        ("dsa-mla shared-index(choice=own)", 'all but index keys of its own: write "dsa-mla" instead'),
        ("dsa-mla shared-index(choice=own, index_keys=own)", 'it has all of its own: write "dsa-mla" instead'),
        ("dsa-mla(rope_learned=true) reindex", "write index_keys=own beside choice=own"),
        ("indexed(learn=gates) indexshare", 'give that layer learn="distilled"'),
        ("topk indexshare(teach=true)", "put dsa-mla there, or teach=false"),
        ("dsa-mla parallel(a=indexshare, b=full)", "take it out of the other mixer"),
        ("parallel(a=dsa-mla, b=full) indexshare", "there is none"),
    ],
)
def test_an_impossible_order_is_refused_with_the_remedy(pattern: str, words: str, installed: Registry) -> None:
    arch = ArchSpec.parse(pattern, installed, MODEL)
    assert words in (refusal(arch, installed) or "")
    with pytest.raises(SpecError):
        HybridLM(arch, installed)


def test_a_model_of_glm52s_pattern_trains_and_chooses_once(installed: Registry) -> None:
    arch = ArchSpec.parse(f"{SMALL} full indexshare indexshare-latents reindex indexshare", installed, MODEL)
    torch.manual_seed(0)
    model = HybridLM(arch, installed).train()
    scored: list[int] = []
    for index, block in enumerate(model.blocks):
        scorer = getattr(block.mixer, "scorer", None)
        if scorer is not None:
            ask, at = scorer.ask, index
            scorer.ask = lambda new, ask=ask, at=at: (scored.append(at), ask(new))[1]
    ctx = Context()
    logits = model(torch.randint(50, (2, 40)), ctx=ctx)
    assert scored == [0, 4]
    (logits.square().mean() + sum(ctx.losses.values())).backward()
    assert {name for name, weights in model.named_parameters() if weights.grad is None} == set()
    assert [block.mixer.source for block in model.blocks[2:]] == [0, 2, 3, 4]


def test_an_index_is_taught_by_the_mean_of_what_all_layers_attend_to(installed: Registry) -> None:
    """IndexCache: its gradients are those of the divergence from the mean, whichever layers stand between."""
    pattern = f"{SMALL} indexshare(teach=true) indexshare indexshare(teach=true)"
    made, ctx = stack(pattern, installed).train(), Context()
    x = torch.randn(2, 60, 32)
    made(x, ctx=ctx)
    owner, first, _, last = made.layers
    rows, positions = owner.rule, torch.arange(60).expand(2, -1)
    weights = [_dense(layer, x, positions) for layer in (owner, first, last)]
    index = owner.scorer
    queries = index.rotary(positions, index.query(x).unflatten(-1, (index.heads, -1)))
    hits = torch.einsum("btji,bsi->btjs", queries, index.finished(index.key(x), positions)).relu()
    scores = torch.einsum("btj,btjs->bts", index.weights(x), hits) * (index.heads * queries.shape[-1]) ** -0.5
    hidden = ~torch.ones(60, 60).tril().bool()
    learnt = scores.masked_fill(hidden, -torch.inf).log_softmax(-1).masked_fill(hidden, 0.0)
    assert rows.block_size == 1
    mean = torch.stack(weights).mean(0)
    wanted = (torch.xlogy(mean, mean) - mean * learnt).sum(-1).mean()
    each = torch.stack([(torch.xlogy(one, one) - one * learnt).sum(-1).mean() for one in weights]).mean()
    assert_close(ctx.losses["indexed"], each)
    learners = list(index.parameters())
    found = torch.autograd.grad(ctx.losses["indexed"], learners, retain_graph=True)
    for got, right in zip(found, torch.autograd.grad(wanted, learners), strict=True):
        assert_close(got, right, rtol=1e-4, atol=1e-6)
    others = [one for layer in (first, last) for one in layer.parameters()]
    assert all(one is None for one in torch.autograd.grad(ctx.losses["indexed"], others, allow_unused=True))


def _dense(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
    """What a layer over latents attends to where nothing is dropped, the mean over heads, `[B, T, T]`."""
    with torch.no_grad():
        q, made = layer.made(x, layer.low(x), positions)
        latent, shared = made["latent"].split([12, 4], dim=-1)
        up = layer.kv_up.weight.view(4, 2, 8, 12)[:, 0]
        plain, asked = q.split([8, 4], dim=-1)
        logits = torch.einsum("bthd,hdc,bsc->bhts", plain, up, latent) + torch.einsum("bthr,bsr->bhts", asked, shared)
        hidden = ~torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return (logits / 12**0.5).masked_fill(hidden, -torch.inf).softmax(-1).mean(1)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_a_taught_index_learns_by_its_teachers_layers(packed: bool, installed: Registry) -> None:
    """Of the teacher each layer's own attention is asked for; and a sequence is as if alone."""
    made = stack("m3(top_k=1, block_size=4) indexshare(teach=true)", installed).train()
    x, asked = torch.randn(1, 24, 32), list[int]()

    class Teacher:
        dense = False

        def attention(self, layer: int) -> Tensor:
            asked.append(layer)
            even = torch.ones(24, 24).tril() if layer else torch.ones(24, 24).tril().flip(1).tril() + torch.eye(24)
            return (even / even.sum(-1, keepdim=True))[None]

        def output(self, layer: int) -> None:
            return None

    bounds = torch.tensor([0, 24]) if packed else None
    ctx = Context(teacher=Teacher(), cu_seqlens=bounds)
    made(x, ctx=ctx)
    assert asked == [0, 1]
    alone = Context(teacher=Teacher(), cu_seqlens=bounds)
    made.layers[0](x, ctx=alone)
    assert ctx.losses["indexed"].item() != pytest.approx(alone.losses["indexed"].item(), rel=1e-3)


def test_nothing_is_shared_where_nobody_takes_it(installed: Registry) -> None:
    made, ctx = stack(f"{SMALL} full", installed), Context()
    made(torch.randn(1, 20, 32), ctx=ctx)
    assert ctx.shared == {}


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "no_token_sees_the_future",
    "gradients_are_finite_and_reach_every_parameter",
    "decode_reads_what_traffic_says",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_one_that_takes_choice_and_latents_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(TAKER, TAKER.presets["indexshare-latents"], tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
@pytest.mark.parametrize("source", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_behind_every_kind_of_index_it_keeps_the_laws(law: Law, source: str) -> None:
    outcome = tried(law, Case.of(TAKER, {}, pattern=f"{source} shared-index shared-index"))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
@pytest.mark.parametrize("taker", ["indexshare", "indexshare-latents", "reindex(index_keys=own)"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_behind_one_of_mistral_large_4_it_keeps_the_laws(law: Law, taker: str, installed: Registry) -> None:
    values = installed.layer(taker).to_json()["options"]
    outcome = tried(law, Case.of(TAKER, values, pattern=f"{LEARNED} shared-index shared-index"))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestConformance(MixerConformance):
    plugin = TAKER
    impls = ("chunkwise", "reference")
