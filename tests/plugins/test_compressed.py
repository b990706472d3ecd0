"""Attention over compressed entries: the layer against loops, its identity, its index, costs, laws."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from archsearch_plugins.compressed import CompressedPlugin, ops
from archsearch_plugins.compressed.cost import dense_up_to, entry_pairs, seen_entries
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = CompressedPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
SMALL = {
    "hca": {**PLUGIN.presets["hca"], "block_size": 8, "window": 5},
    "csa": {**PLUGIN.presets["csa"], "top_k": 3, "window": 6, "index_dim": 6, "q_rank": 12},
    "no-sink": {"block_size": 4, "window": 3, "sink": False, "norm": False, "rope": 0.0},
    "no-window": {"block_size": 4, "overlap": True, "window": 0},
}


def layer_of(values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    layer = PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).eval()
    for weights in layer.parameters():
        if weights.dim() != 2:
            torch.nn.init.normal_(weights, std=0.5)
    return layer


def turned(x: Tensor, place: int, fraction: float) -> Tensor:
    """One vector with its leading channels turned by its place."""
    count, out = 2 * int(fraction * len(x) / 2), x.clone()
    for i in range(0, count, 2):
        angle = torch.tensor(place * 10000.0 ** (-i / count), dtype=x.dtype)
        out[i] = x[i] * angle.cos() - x[i + 1] * angle.sin()
        out[i + 1] = x[i] * angle.sin() + x[i + 1] * angle.cos()
    return out


def even(x: Tensor, scale: Tensor | None) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * (1.0 if scale is None else scale)


def entry(compressor: Any, x: Tensor, block: int, options: Any) -> Tensor:
    """Entry `block` of x `[T, D]`, channel by channel, in the words of the paper."""
    size, width = options.block_size, compressor.width
    made = (x @ compressor.project.weight.T).view(len(x), options.series, options.parts, width)
    found = torch.zeros(width, dtype=x.dtype)
    for channel in range(width):
        logits, contents = [], []
        for series in range(options.series):
            for j in range(size):
                token = (block - series) * size + j
                if token >= 0:
                    contents.append(made[token, series, 0, channel])
                    if options.parts == 2:
                        logits.append(made[token, series, 1, channel] + compressor.bias[series, j, channel])
        weights = torch.softmax(torch.stack(logits), 0) if logits else torch.ones(1, dtype=x.dtype)
        found[channel] = weights @ torch.stack(contents)
    if compressor.norm is not None:
        found = even(found, compressor.norm.weight)
    return turned(found, block * size, options.rope)


def by_the_rule(layer: Any, x: Tensor) -> Tensor:
    """One token and head at a time, x `[T, D]`."""
    options, outputs = layer.options, []
    width, size = SHAPE.head_dim, options.block_size
    blocks = range(len(x) // size)
    entries = [entry(layer.compressor, x, block, options) for block in blocks]
    low = x
    if layer.q_down is not None:
        low = torch.stack([even(one @ layer.q_down.weight.T, layer.q_norm.weight) for one in x])
    indexed = [] if layer.index is None else [entry(layer.index.compressor, x, block, options) for block in blocks]
    rows = [] if layer.row is None else [one @ layer.row.weight.T for one in x]
    rows = [even(one, layer.row_norm.weight) for one in rows] if layer.row_norm is not None else rows
    rows = [turned(one, t, options.rope) for t, one in enumerate(rows)]
    for t in range(len(x)):
        seen = [block for block in blocks if (block + 1) * size <= t + 1]
        if options.top_k:
            seen = best(layer, x[t], low[t], t, indexed[: len(seen)])[: options.top_k]
        keys = [rows[s] for s in range(max(0, t - options.window + 1), t + 1)] if rows else []
        keys = keys + [entries[block] for block in seen]
        heads = (low[t] @ layer.q_up.weight.T).view(SHAPE.n_heads, width)
        mixed = []
        for h, q in enumerate(heads):
            q = turned(even(q, None) if options.norm else q, t, options.rope)
            logits = [q @ key / width**0.5 for key in keys] + ([layer.sink[h]] if layer.sink is not None else [])
            weights = torch.softmax(torch.stack(logits), 0)
            value = sum((w * key for w, key in zip(weights, keys, strict=False)), torch.zeros_like(q))
            mixed.append(turned(value, -t, options.rope))
        outputs.append(torch.cat(mixed) @ layer.out.weight.T)
    return torch.stack(outputs)


@torch.no_grad()
def best(layer: Any, x: Tensor, low: Tensor, t: int, keys: list[Tensor]) -> list[int]:
    """The entries with those keys, in the order of their scores."""
    options, index = layer.options, layer.index
    queries = (low @ index.query.weight.T).view(options.index_heads, options.index_dim)
    asked, weights = [turned(q, t, options.rope) for q in queries], x @ index.weights.weight.T
    scores = [float(sum(w * torch.relu(q @ key) for w, q in zip(weights, asked, strict=True))) for key in keys]
    return sorted(range(len(keys)), key=lambda block: -scores[block])


@cache
def expected(name: str) -> tuple[Any, Tensor, Tensor, tuple[Tensor, ...]]:
    """A layer in float64, an input, what the rule gives of it, and the gradients of a sum."""
    layer = layer_of(SMALL[name]).double()
    x = torch.randn(1, 19, 32, dtype=torch.float64)
    wanted = by_the_rule(layer, x[0])[None]
    return layer, x, wanted.detach(), torch.autograd.grad(wanted.sin().sum(), learners(layer))


def learners(layer: Any) -> list[Tensor]:
    """What the output teaches."""
    return [weights for name, weights in layer.named_parameters() if not name.startswith("index")]


@pytest.mark.parametrize("impl", ["chunkwise", "reference", "pieces"])
@pytest.mark.parametrize("name", SMALL)
def test_a_layer_follows_the_rule(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients too; "pieces" are the forms that long sequences take."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference" if impl == "reference" else "chunkwise")
    if impl == "pieces":
        monkeypatch.setattr(ops, "PIECE_TOKENS", 7)
        monkeypatch.setattr(ops, "ENTRIES_A_ROW", 0)
    layer, x, wanted, gradients = expected(name)
    out = layer(x, ctx=Context())[0]
    assert_close(out, wanted, rtol=1e-9, atol=1e-9)
    for got, right in zip(torch.autograd.grad(out.sin().sum(), learners(layer)), gradients, strict=True):
        assert_close(got, right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rope", [0.0, 1.0])
@pytest.mark.parametrize(("preset", "chosen"), [("csa", {"top_k": 40}), ("hca", {})], ids=["csa", "hca"])
def test_entries_of_single_tokens_are_full_attention_whose_shared_keys_are_its_values(
    preset: str, chosen: dict[str, int], rope: float
) -> None:
    """DeepSeek-V4, section 2.3: a block of 1, without overlap, window, sink and norm, every entry seen (of `hca`) or
    chosen (of `csa`)."""
    plain = {"block_size": 1, "overlap": False, "window": 0, "sink": False, "norm": False}
    layer = layer_of({**PLUGIN.presets[preset], **plain, **chosen, "rope": rope})
    assert (layer.index is None) == (preset == "hca")
    x = torch.randn(2, 30, 32)
    q = layer.q_up(x).unflatten(-1, (4, 8)).transpose(1, 2)
    k = layer.compressor.project(x)[:, None].expand(-1, 4, -1, -1)
    t = torch.arange(30).expand(2, -1)
    turn = lambda h, back=False: layer.rotary(t, h.transpose(1, 2), back=back).transpose(1, 2)  # noqa: E731
    full = torch.nn.functional.scaled_dot_product_attention(turn(q), turn(k), turn(k), is_causal=True)
    wanted = layer.out(turn(full, back=True).transpose(1, 2).flatten(2))
    assert_close(layer(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-6)


def test_a_weight_depends_on_the_distance_alone() -> None:
    """Outputs are turned back: a sequence that begins at another position gives the same."""
    layer, x = layer_of(SMALL["csa"]), torch.randn(1, 40, 32)
    later = Context(positions=torch.arange(7, 47)[None])
    assert_close(layer(x, ctx=later)[0], layer(x, ctx=Context())[0], rtol=1e-4, atol=1e-5)


class FakeTeacher:
    """Attends to the first token of a row alone."""

    def attention(self, layer: int) -> Tensor:
        weights = torch.zeros(2, 60, 60)
        weights[:, :, 0] = 1.0
        return weights

    def output(self, layer: int) -> None:
        return None


@pytest.mark.parametrize("teacher", [FakeTeacher(), None], ids=["by a teacher", "by itself"])
def test_the_index_learns_what_is_attended_to_and_nothing_else_does(teacher: FakeTeacher | None) -> None:
    layer, x = layer_of({**SMALL["csa"], "top_k": 2}).train(), torch.randn(2, 60, 32, requires_grad=True)
    ctx = Context(teacher=teacher)
    out, _ = layer(x, ctx=ctx)
    others = [weights for name, weights in layer.named_parameters() if not name.startswith("index")]
    assert all(g is None for g in torch.autograd.grad(ctx.losses["compressed"], [x, *others], allow_unused=True))
    assert all(g is None for g in torch.autograd.grad(out.sum(), [*layer.index.parameters()], allow_unused=True))
    optimizer, losses = torch.optim.Adam(layer.index.parameters(), lr=2e-2), []
    for _ in range(25):
        ctx = Context(teacher=teacher)
        layer(x.detach(), ctx=ctx)
        losses.append(ctx.losses["compressed"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


COSTED = {**PLUGIN.presets, **PLUGIN.conformance["cases"]}


@pytest.mark.parametrize("values", COSTED.values(), ids=COSTED.keys())
def test_counts_are_those_of_the_rule(values: dict[str, Any]) -> None:
    options = PLUGIN.parse_options(values)
    for context in (1, 7, 40, 130):
        there = [(t + 1) // options.block_size for t in range(context)]
        seen = [min(count, options.top_k) if options.top_k else count for count in there]
        assert seen_entries(options, context) == seen[-1]
        assert entry_pairs(options, context, options.top_k) == sum(seen)
    dense = dense_up_to(options)
    if 0 < dense < 200:  # of every token an entry that is seen, or the token in the window
        size, last = options.block_size, dense - 1
        assert options.window >= dense or (last + 1) // size <= (options.top_k or 10**9)


@pytest.mark.parametrize("values", COSTED.values(), ids=COSTED.keys())
def test_matmul_flops_are_those_of_explicit_products(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step, without the products that a mask of scores throws away."""
    options, tokens = PLUGIN.parse_options(values), 200
    layer, x = layer_of(values), torch.randn(1, tokens, 32)
    with torch.no_grad():
        _, state = layer(x[:, :-1], state=layer.init_state(1, tokens), ctx=Context(want_state=True))
        monkeypatch.setenv("ARCHSEARCH_IMPL", "chunkwise" if options.top_k else "reference")
        counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context()))
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=tokens).matmul
    assert said == pytest.approx(counted, rel=0.05)
    whole = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=tokens).matmul
    each = [PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=t + 1).matmul for t in range(tokens)]
    assert whole == pytest.approx(sum(each), rel=0.01)


def test_the_state_grows_by_an_entry_a_block() -> None:
    options = PLUGIN.parse_options({"block_size": 128, "window": 128, "rope": 0.0})
    sizes = {row.name: row.nbytes(100_000) // (8 * 4) for row in PLUGIN.state(options, SHAPE, LAYER)}
    assert sizes == {"entry": 782, "window": 128, "entry_raw0": 2 * 127}


def test_bad_options_are_refused_with_the_remedy() -> None:
    with pytest.raises(OptionsError, match="use window of 1 at least"):
        PLUGIN.parse_options({"window": 0, "sink": False})
    with pytest.raises(OptionsError, match=r"compressed\(block_size=0\)"):
        PLUGIN.parse_options({"block_size": 0})


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "no_token_sees_the_future",
    "gradients_are_finite_and_reach_every_parameter",
    "state_allocates_the_bytes_it_promises",
    "params_equal_what_is_built",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_csa_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {**SMALL["csa"], "top_k": 4}, tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestCompressedConformance(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")


@pytest.mark.arena
class TestCompressedConformanceInPieces(MixerConformance):
    """The forms that long sequences take."""

    plugin = PLUGIN

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ops, "PIECE_TOKENS", 32)
        monkeypatch.setattr(ops, "ENTRIES_A_ROW", 0)
