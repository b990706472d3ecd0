"""Attention over what an index chooses: the op against loops, each preset's identity, learning, costs, laws."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin, ops
from archsearch_plugins.indexed.choice import (
    Choice,
    best_of_block,
    bound_scores,
    chosen_blocks,
    group_scores,
)
from archsearch_plugins.indexed.cost import chosen_pairs, indexed_flops, seen_keys
from archsearch_plugins.indexed.ops import indexed_attention
from archsearch_plugins.indexed.options import Rule
from archsearch_plugins.indexed.summaries import block_sums, most_asked, sum_of
from archsearch_plugins.moba.ops import moba_attention
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import block_sparse
from archsearch.ops.index_scores import best_mask, relu_scores
from archsearch.ops.laid_out import LaidOut
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = IndexedPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
RULES = {
    "tokens": Rule(block_size=1, top_k=5, tail=True, local=0, first=0),
    "tokens-local-3-first-2": Rule(block_size=1, top_k=4, tail=False, local=3, first=2),
    "tail-of-4": Rule(block_size=4, top_k=2, tail=True, local=0, first=0),
    "blocks-of-8": Rule(block_size=8, top_k=2, tail=False, local=0, first=0),
    "blocks-of-8-local-first": Rule(block_size=8, top_k=1, tail=False, local=1, first=1),
}


@pytest.fixture(params=["reference", "masked", "pieces", "rows", "tiles"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The `impl` to ask for; all but "masked" are forms that many keys take, here on few."""
    if request.param in ("pieces", "rows", "tiles"):
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
        monkeypatch.setattr(ops, "PIECE_TOKENS", 7)
        monkeypatch.setattr(ops, "KEYS_A_ROW", 10**6 if request.param == "pieces" else 0)
        monkeypatch.setattr(ops, "SHORTEST_TILE", 1 if request.param == "tiles" else 10**6)
    return "reference" if request.param == "reference" else "chunkwise"


def inputs(tokens: int, keys: int, choosers: int, blocks: int) -> list[Tensor]:
    """q, k, v and scores in float64 that want gradients."""
    generator = torch.Generator().manual_seed(tokens + keys)
    sizes = [(1, tokens, 4, 8), (1, keys, 2, 8), (1, keys, 2, 8), (1, choosers, tokens, blocks)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]


class Given:
    """Scores that are given, `[B, Hc, T, n]`."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, part: slice) -> Tensor:
        return self.scores[:, :, part]


def seen_by(rule: Rule, scores: list[float], position: int) -> tuple[set[int], set[int]]:
    """Blocks that are always in and those that are chosen, for one token, in the words of the README."""
    size, own = rule.block_size, position // rule.block_size
    complete = (position + 1) // size if rule.tail else own
    edge = max(0, complete - rule.local)
    always = set(range(edge, own + 1)) | {block for block in range(rule.first) if block < edge}
    rest = list(range(rule.first, edge))
    return always, set(sorted(rest, key=lambda block: -scores[block])[: rule.top_k])


def by_the_rule(q: Tensor, k: Tensor, v: Tensor, scores: Tensor, rule: Rule, gated: bool) -> Tensor:
    """One token and head at a time."""
    out, before = torch.zeros_like(q), k.shape[1] - q.shape[1]
    for b, t, h in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        own = scores[b, h * scores.shape[1] // 4, t]
        always, best = seen_by(rule, own.tolist(), before + t)
        keys = [s for s in range(before + t + 1) if s // rule.block_size in always | best]
        logits = k[b, keys, h // 2] @ q[b, t, h] / 8**0.5
        if gated:
            gates = [
                own[s // rule.block_size].sigmoid().log() if s // rule.block_size in best else own[0] * 0 for s in keys
            ]
            logits = logits + torch.stack(gates)
        out[b, t, h] = torch.softmax(logits, 0) @ v[b, keys, h // 2]
    return out


@cache
def expected(rule: Rule, gated: bool, tokens: int, keys: int) -> tuple[list[Tensor], Tensor, tuple[Tensor, ...]]:
    """Inputs, what the rule gives of them, and the gradients of a sum."""
    leaves = inputs(tokens, keys, {1: 1, 4: 2, 8: 4}[rule.block_size], keys // rule.block_size)
    out = by_the_rule(*leaves, rule, gated)
    return leaves, out, torch.autograd.grad(out.sin().sum(), leaves[: 4 if gated else 3])


@pytest.mark.parametrize("gated", [False, True], ids=["", "gated"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_op_follows_the_rule(form: str, rule: Rule, gated: bool) -> None:
    for tokens, keys in ((29, 29), (5, 36), (1, 30)):
        (q, k, v, scores), wanted, gradients = expected(rule, gated, tokens, keys)
        positions = torch.arange(keys - tokens, keys)[None]
        choice = Choice(rule=rule, scores=Given(scores), choosers=scores.shape[1], gated=gated)
        out = indexed_attention(q, k, v, positions, choice, impl=form)
        assert_close(out, wanted, rtol=1e-9, atol=1e-9)
        found = torch.autograd.grad(out.sin().sum(), (q, k, v, scores)[: len(gradients)])
        for got, right in zip(found, gradients, strict=True):
            assert_close(got, right, rtol=1e-8, atol=1e-8)


def test_scores_follow_loops() -> None:
    q, keys, weights = torch.randn(2, 5, 3, 8), torch.randn(2, 12, 8), torch.randn(2, 5, 3)
    naive = torch.zeros(2, 5, 12)
    for b, t, s, j in torch.cartesian_prod(*map(torch.arange, (2, 5, 12, 3))).tolist():
        naive[b, t, s] += weights[b, t, j] * max(0.0, float(q[b, t, j] @ keys[b, s]))
    assert_close(relu_scores(q, keys, weights)[:, 0], naive)
    assert_close(relu_scores(q, keys), relu_scores(q, keys, torch.ones(2, 5, 3)))
    each = torch.stack([q[:, :, g] @ keys.mT for g in range(3)], 1)
    assert_close(group_scores(q, keys), each)
    assert_close(best_of_block(each, 4)[..., 1], each[..., 4:8].amax(-1))


def test_a_bound_is_met_by_no_key_of_the_block() -> None:
    """Quest: no product with a key of the block is higher, and with a block of one key it is the product."""
    q, keys = torch.randn(2, 6, 4, 8), torch.randn(2, 5, 16, 2, 8)
    bounds = torch.stack((keys.amin(2), keys.amax(2)), 2)
    products_of = torch.einsum("bthd,bnshd->bhtns", q, keys.repeat_interleave(2, 3))
    assert (bound_scores(q, bounds) >= products_of.amax(-1) - 1e-5).all()
    single = keys[:, :, 0]
    assert_close(bound_scores(q, torch.stack((single, single), 2)), products_of[..., 0])


def test_representatives_are_the_keys_that_were_asked_most_for() -> None:
    keys, asked, query = torch.randn(1, 2, 6, 1, 8), torch.randn(1, 2, 1, 8), torch.randn(8)
    found = sum_of(keys, most_asked(keys, asked, 2))
    for block in range(2):
        scores = keys[0, block, :, 0] @ asked[0, block, 0]
        best = sorted(range(6), key=lambda s: -float(scores[s]))[:2]
        assert_close(found[0, block, 0] @ query, sum(keys[0, block, s, 0] @ query for s in best))


def test_of_equal_scores_the_earliest_are_chosen() -> None:
    scores = torch.tensor([[0.0, 1.0, 0.0, 0.0, -torch.inf, 0.0]])
    assert best_mask(scores, 3).tolist() == [[True, True, True, False, False, False]]
    rule = Rule(block_size=1, top_k=3, tail=True, local=0, first=0)
    assert chosen_blocks(torch.zeros(1, 1, 1, 9), torch.tensor([[6]]), rule)[0, 0, 0].tolist() == [-1, 0, 1, 2]


def test_sums_of_blocks_go_on_from_a_token_to_the_next() -> None:
    new, lengths = torch.randn(2, 11, 3), torch.tensor([0, 0])
    whole, last = block_sums(torch.zeros(2, 1, 3), new, lengths, 4)
    pool, sums = torch.full((2, 1, 3), torch.nan), []
    for token in range(11):
        found, pool = block_sums(pool, new[:, token : token + 1], lengths + token, 4)
        sums += [found[:, 0]] if token % 4 == 3 else []
    assert_close(torch.stack(sums, 1), whole[:, :2])
    assert_close(pool, last)


def layer_of(values: dict[str, Any], shape: ModelShape = SHAPE) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(values), shape, LAYER).eval()


HEAD_KEYS = {name: values for name, values in PLUGIN.presets.items() if "kv_rank" not in values}
"""Presets that attend to keys of heads."""


@pytest.mark.parametrize("preset", HEAD_KEYS)
def test_with_everything_chosen_it_is_full_attention(preset: str, registry: Any) -> None:
    ours, full = layer_of({**PLUGIN.presets[preset], "top_k": 64}), registry.mixer("full")
    theirs = full.build(full.parse_options({"rope": ours.options.rope}), SHAPE, LAYER)
    theirs.load_state_dict({name: ours.state_dict()[name] for name in theirs.state_dict()})
    x = torch.randn(2, 60, 32)
    with torch.no_grad():
        wanted = theirs(x, ctx=Context())[0]
        assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-6)
        state = ours.init_state(2, 60)
        _, state = ours(x[:, :58], state=state, ctx=Context(want_state=True))
        assert_close(ours.step(x[:, 58], state=state, ctx=Context())[0], wanted[:, 58], rtol=1e-5, atol=1e-6)


def test_mean_keys_and_attention_choose_as_moba() -> None:
    layer = layer_of(
        {"block_size": 8, "top_k": 2, "own": "block", "scorer": "attention", "summary": "mean", "learn": "none"}
    )
    x = torch.randn(2, 90, 32)
    with torch.no_grad():
        q, k, v = layer.project(x, torch.arange(90).expand(2, -1))
        theirs = layer.output(moba_attention(LaidOut(q, k, v), block_size=8, top_k=3))
        assert_close(layer(x, ctx=Context())[0], theirs, rtol=1e-5, atol=1e-6)


def test_exact_top_k_loses_the_least_weight() -> None:
    """Of all choices of 5 tokens a head, the chosen keep the most of what full attention weighs."""
    layer = layer_of({"top_k": 5, "scorer": "attention", "learn": "none"})
    x = torch.randn(1, 40, 32)
    with torch.no_grad():
        q, k, v = layer.project(x, torch.arange(40)[None])
        logits = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) / 8**0.5
        weights = logits.masked_fill(~torch.ones(40, 40).tril().bool(), -torch.inf).softmax(-1)
        kept = torch.where(weights >= weights.sort(-1, descending=True).values[..., 4:5], weights, 0.0)
        kept = kept / kept.sum(-1, keepdim=True)
        wanted = layer.output(torch.einsum("bhts,bshd->bthd", kept, v.repeat_interleave(2, 2)))
        assert_close(layer(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-6)


class FakeTeacher:
    """Says what it is given, of every layer."""

    def __init__(self, weights: Tensor | None, *, dense: bool = False) -> None:
        self.weights, self.asked, self.dense = weights, [], dense

    def attention(self, layer: int) -> Tensor | None:
        self.asked.append(layer)
        return self.weights

    def output(self, layer: int) -> Tensor | None:
        return None


def lesson(tokens: int) -> Tensor:
    even = torch.ones(tokens, tokens).tril()
    even = even / even.sum(-1, keepdim=True)
    first = torch.zeros(tokens, tokens)
    first[:, 0] = 1.0
    return ((first + even) / 2)[None].repeat(2, 1, 1)


def naive_loss(layer: Any, x: Tensor, target: Tensor) -> Tensor:
    """DSA's divergence by the whole square; target `[B, T, T]`."""
    positions = torch.arange(x.shape[1]).expand(len(x), -1)
    index = layer.scorer
    queries = index.rotary(positions, index.query(x).unflatten(-1, (index.heads, -1)))
    keys = index.finished(index.key(x), positions)
    hits = torch.einsum("btji,bsi->btjs", queries, keys).relu()
    scores = torch.einsum("btj,btjs->bts", index.weights(x), hits) * (index.heads * keys.shape[-1]) ** -0.5
    hidden = ~torch.ones(x.shape[1], x.shape[1]).tril().bool()
    learnt = scores.masked_fill(hidden, -torch.inf).log_softmax(-1).masked_fill(hidden, 0.0)
    return (torch.xlogy(target, target) - target * learnt).sum(-1).mean()


@pytest.mark.parametrize("taught", ["by a teacher", "by a teacher without that layer", "by itself"])
def test_the_indexer_is_distilled(taught: str) -> None:
    layer, x = layer_of({"top_k": 8}).train(), torch.randn(2, 150, 32, requires_grad=True)
    teacher = {"by a teacher": FakeTeacher(lesson(150)), "by itself": None}.get(taught, FakeTeacher(None))
    ctx = Context(teacher=teacher)
    out, _ = layer(x, ctx=ctx)
    if teacher is not None:
        assert teacher.asked == [0]
    with torch.no_grad():
        q, k, _ = layer.project(x, torch.arange(150).expand(2, -1))
        logits = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) / 8**0.5
        own = logits.masked_fill(~torch.ones(150, 150).tril().bool(), -torch.inf).softmax(-1).mean(1)
    wanted = naive_loss(layer, x.detach(), lesson(150) if taught == "by a teacher" else own)
    assert_close(ctx.losses["indexed"], wanted)
    learners = {name: weights for name, weights in layer.named_parameters() if name.startswith("scorer")}
    for name, got, right in zip(
        learners,
        torch.autograd.grad(ctx.losses["indexed"], learners.values(), retain_graph=True),
        torch.autograd.grad(wanted, learners.values()),
        strict=True,
    ):
        assert_close(got, right, msg=lambda text, name=name: f"{name}: {text}")
    others = [weights for name, weights in layer.named_parameters() if name not in learners]
    assert all(found is None for found in torch.autograd.grad(ctx.losses["indexed"], [x, *others], allow_unused=True))
    assert all(found is None for found in torch.autograd.grad(out.sum(), [*learners.values()], allow_unused=True))


@pytest.mark.parametrize("dense", [False, True], ids=["sparse-stage", "dense-stage"])
def test_over_what_is_chosen_it_is_the_divergence_among_the_best(dense: bool) -> None:
    """arXiv 2512.02556, equation 4; in the dense stage equation 3, over all."""
    layer, x = layer_of({"top_k": 8, "learn_over": "chosen"}).train(), torch.randn(2, 60, 32)
    ctx = Context(teacher=FakeTeacher(lesson(60), dense=dense))
    layer(x, ctx=ctx)
    index, positions = layer.scorer, torch.arange(60).expand(2, -1)
    queries = index.rotary(positions, index.query(x).unflatten(-1, (index.heads, -1)))
    hits = torch.einsum("btji,bsi->btjs", queries, index.finished(index.key(x), positions)).relu()
    scores = torch.einsum("btj,btjs->bts", index.weights(x), hits) * (index.heads * queries.shape[-1]) ** -0.5
    losses = []
    for batch, token in torch.cartesian_prod(torch.arange(2), torch.arange(60)).tolist():
        among = scores[batch, token, : token + 1]
        best = among.topk(len(among) if dense else min(8, len(among))).indices
        target = lesson(60)[batch, token, best]
        target = target / target.sum()
        losses.append((target * (target.log() - among[best].log_softmax(0))).sum())
    assert_close(ctx.losses["indexed"], torch.stack(losses).mean())


@pytest.mark.parametrize("preset", ["dsa", "qsa", "m3"])
def test_a_scorer_learns_what_its_teacher_attends_to(preset: str) -> None:
    layer, x = layer_of({**PLUGIN.presets[preset], "top_k": 2}).train(), torch.randn(2, 48, 32)
    optimizer, losses = torch.optim.Adam(layer.scorer.parameters(), lr=2e-2), []
    for _ in range(30):
        ctx = Context(teacher=FakeTeacher(lesson(48)))
        layer(x, ctx=ctx)
        losses.append(ctx.losses["indexed"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_of_packed_sequences_each_learns_from_its_own_square() -> None:
    layer, x = layer_of({"top_k": 4}).train(), torch.randn(1, 30, 32)
    weights = torch.zeros(1, 30, 30)
    for start, end in ((0, 11), (11, 30)):
        weights[:, start:end, start:end] = lesson(end - start)[:1]
    packed = Context(cu_seqlens=torch.tensor([0, 11, 11, 30]), teacher=FakeTeacher(weights))
    layer(x, ctx=packed)
    parts = []
    for start, end in ((0, 11), (11, 30)):
        alone = Context(teacher=FakeTeacher(lesson(end - start)[:1]))
        layer(x[:, start:end], ctx=alone)
        parts.append(alone.losses["indexed"] * (end - start))
    assert_close(packed.losses["indexed"], sum(parts) / 30)


def test_no_loss_is_added_where_nothing_is_learnt_or_in_evaluation() -> None:
    for values, training in (({}, False), ({"learn": "gates"}, True), (dict(PLUGIN.presets["quest"]), True)):
        ctx = Context()
        layer_of(values).train(training)(torch.randn(1, 20, 32), ctx=ctx)
        assert ctx.losses == {}


COSTED = {
    **HEAD_KEYS,
    "small-dsa": {"top_k": 5},
    "local": {"block_size": 4, "top_k": 2, "own": "block", "local": 2, "first": 1, "scorer": "group"},
}


@pytest.mark.parametrize("values", COSTED.values(), ids=COSTED.keys())
def test_counts_are_those_of_the_rule(values: dict[str, Any]) -> None:
    options = PLUGIN.parse_options(values)
    rule, size = options.rule, options.block_size
    for context in (1, 7, 40, 130):
        tokens = [seen_by(rule, [0.0] * context, position) for position in range(context)]
        seen = [
            sum(s // size in always | best for s in range(position + 1))
            for position, (always, best) in enumerate(tokens)
        ]
        assert seen_keys(options, context) == seen[-1]
        assert chosen_pairs(options, context) == sum(seen)
        assert (max(a - b for a, b in zip(range(1, context + 1), seen, strict=True)) > 0) == (
            context > PLUGIN.dense_up_to(options, LAYER)
        )


@pytest.mark.parametrize("values", COSTED.values(), ids=COSTED.keys())
def test_matmul_flops_are_those_of_explicit_products(values: dict[str, Any]) -> None:
    """One token at a time, of what a token scores, and of the keys that it sees."""
    options, tokens = PLUGIN.parse_options(values), 200
    layer, x = PLUGIN.build(options, SHAPE, LAYER), torch.randn(1, tokens, 32)
    state = layer.init_state(1, tokens)
    with torch.no_grad():
        _, state = layer(x[:, :-1], state=state, ctx=Context(want_state=True))
        counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context()))
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=tokens).matmul
    rule = options.rule
    padded = (rule.local + 1 + rule.first + rule.top_k) * options.block_size - seen_keys(options, tokens)
    wasted = 4.0 * padded * 8 * 4 if options.learn == "gates" else 0.0  # rows that point at the token's own
    assert said == pytest.approx(counted - wasted, rel=0.05)
    whole = indexed_flops(options, SHAPE, phase="prefill", context=tokens).matmul
    each = [indexed_flops(options, SHAPE, phase="decode", context=t + 1).matmul for t in range(tokens)]
    assert whole == pytest.approx(sum(each))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"summary": "mean"}, "blocks of one token"),
        ({"block_size": 8, "summary": "minmax", "own": "block"}, "keys of attention"),
        ({"block_size": 8, "own": "tail", "scorer": "attention", "learn": "none"}, 'own="block"'),
        (
            {"block_size": 8, "own": "block", "scorer": "attention", "summary": "representative", "learn": "none"},
            "local",
        ),
        ({"learn": "none"}, "as they were drawn"),
        ({"scorer": "attention"}, "weights of its own"),
        ({"block_size": 8, "own": "block", "scorer": "attention", "summary": "minmax", "learn": "gates"}, "no logits"),
        ({"block_size": 8, "summary": "gated"}, "rope=0"),
        ({"kv_rank": 8, "scorer": "group"}, "kv_rank=0"),
        ({"shared_dim": 8}, "kv_rank above 0"),
        ({"q_rank": 8}, "kv_rank above 0"),
        ({"kv_rank": 8, "qk_norm": True}, "kv_rank=0"),
        ({"index_dim": 1, "rope": 0.0}, "index_dim = 2 or more"),
        ({"top_k": 0}, "greater than or equal"),
        ({"scorer": "cosine"}, "scorer"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_options_that_make_no_sense_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        PLUGIN.parse_options(values)


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "no_token_sees_the_future",
    "gradients_are_finite_and_reach_every_parameter",
    "state_allocates_the_bytes_it_promises",
    "params_equal_what_is_built",
    "decode_reads_what_traffic_says",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_qsa_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {**PLUGIN.presets["qsa"], "top_k": 2}, tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestIndexedConformance(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")


@pytest.mark.arena
class TestIndexedConformanceOfManyKeys(MixerConformance):
    """The forms that many keys take."""

    plugin = PLUGIN

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
        monkeypatch.setattr(ops, "PIECE_TOKENS", 32)


@pytest.mark.arena
@pytest.mark.parametrize("preset", PLUGIN.presets)
def test_long_sequences_make_no_square(preset: str) -> None:
    tokens, largest = 2048, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                largest = max(largest, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    shape = ModelShape(d_model=16, n_heads=1, n_kv_heads=1, head_dim=8, dtype="float32")
    few = {"index_heads": 1} if PLUGIN.parse_options(PLUGIN.presets[preset]).scorer == "relu" else {}
    layer, ctx = layer_of({**PLUGIN.presets[preset], **few}, shape).train(), Context()
    with Watch(), torch.random.fork_rng():
        out, _ = layer(torch.randn(1, tokens, 16), ctx=ctx)
        (out.sum() + sum(ctx.losses.values())).backward()
    assert largest <= tokens * tokens / 4
