"""Attention under a static pattern: the pattern as a graph, the op against loops, the ring, costs, laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.sliding.ops import window_attention
from archsearch_plugins.static import StaticPlugin
from archsearch_plugins.static.cost import kept_rows, seen_pairs, seen_rows
from archsearch_plugins.static.layer import StaticAttention
from archsearch_plugins.static.ops import static_attention
from archsearch_plugins.static.options import StaticOptions
from archsearch_plugins.static.pattern import pattern
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import block_sparse
from archsearch.ops.laid_out import LaidOut
from archsearch.testing import MixerConformance

PLUGIN = StaticPlugin()
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": dict(PLUGIN.presets["longformer"]),
    "bigbird": dict(PLUGIN.presets["bigbird"]),
    **PLUGIN.conformance["cases"],
}


def _options(name: str) -> StaticOptions:
    return PLUGIN.parse_options(OPTIONS[name])


def _seen(options: StaticOptions, token: int, head: int) -> list[int]:
    """Tokens that one sees, from the definition; those drawn are taken from the pattern."""
    size, own = options.block_size, token // options.block_size
    blocks = {own, *range(min(options.first, own + 1))}
    blocks |= {own - options.dilation * i for i in range(1, options.local + 1)} & set(range(options.first, own))
    if options.random:
        drawn = pattern(options, torch.tensor([own]), 2)[0, head, -options.random :]
        blocks |= {int(block) for block in drawn if block >= 0}
    return [s for s in range(token + 1) if s // size in blocks]


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, options: StaticOptions) -> Tensor:
    rows = []
    for t in range(q.shape[1]):
        heads = []
        for h in range(q.shape[2]):
            seen = _seen(options, t, h // 2)
            weights = (k[:, seen, h // 2] @ q[:, t, h, :, None] * 8**-0.5).softmax(1)
            heads.append((weights * v[:, seen, h // 2]).sum(1))
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows, 1)


def _op(q: Tensor, k: Tensor, v: Tensor, options: StaticOptions, impl: str = "auto") -> Tensor:
    positions = torch.arange(q.shape[1]).expand(len(q), -1)
    blocks = lambda at: pattern(options, at, k.shape[2])  # noqa: E731
    return static_attention(q, k, v, positions, blocks, block_size=options.block_size, impl=impl)


@pytest.mark.parametrize("form", ["masked", "tiles", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
def test_op_equals_token_by_token(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "tiles":
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    torch.manual_seed(1)
    options = _options(name)
    tensors = [torch.randn(2, 50, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)]
    expected = _token_by_token(*tensors, options)
    actual = _op(*tensors, options, "reference" if form == "reference" else "auto")
    assert_close(actual, expected)
    weights = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
        strict=True,
    ):
        assert_close(found, wanted)


def test_longformer_of_single_tokens_without_dilation_is_the_sliding_window() -> None:
    """Longformer, arXiv 2004.05150, section 3.1: a window of w tokens, here the own one and 7 before it."""
    q, k, v = (torch.randn(2, 40, heads, 8, dtype=torch.float64) for heads in (4, 2, 2))
    options = PLUGIN.parse_options({"block_size": 1, "local": 7, "first": 2})
    assert_close(_op(q, k, v, options), window_attention(LaidOut(q, k, v), window=8, sinks=2))


def test_bigbird_links_any_two_blocks_by_its_global_ones() -> None:
    """BigBird, arXiv 2007.14062, section 2: window, random and global parts; by a global block every path has two
    steps. Each query block has r random ones, which differ between heads, layers and seeds."""
    options = PLUGIN.parse_options(OPTIONS["bigbird"])
    blocks = torch.arange(40)
    found = pattern(options, blocks, 2)
    for own in range(40):
        for head in range(2):
            kept = [int(block) for block in found[own, head] if block >= 0]
            assert len(kept) == len(set(kept)) == options.earlier(own) + 1
            assert {own, *range(min(2, own))} <= set(kept)
            assert max(kept) == own
    drawn = found[..., -3:]
    assert (drawn[:, 0] != drawn[:, 1]).any()
    assert (pattern(options, blocks, 2, layer=1) != found).any()
    reseeded = PLUGIN.parse_options({**OPTIONS["bigbird"], "seed": 1})
    assert (pattern(reseeded, blocks, 2) != found).any()
    assert torch.equal(pattern(options, blocks[7:9], 2), found[7:9])


def test_random_blocks_are_drawn_evenly() -> None:
    options = PLUGIN.parse_options({"block_size": 1, "local": 0, "first": 0, "random": 1})
    own = torch.full((1,), 10)
    heads = pattern(options, own, 4000)[0, :, -1]
    counts = torch.bincount(heads, minlength=10)
    assert counts.shape == (10,)
    assert counts.min() > 320
    assert counts.max() < 480


@pytest.mark.parametrize("name", OPTIONS)
def test_pairs_and_rows_are_those_of_the_definition(name: str) -> None:
    options = _options(name)
    seen = [len(_seen(options, t, 0)) for t in range(120)]
    for context in (1, 7, 8, 40, 119, 120):
        assert seen_rows(options, context) == seen[context - 1]
        assert seen_pairs(options, context) == sum(seen[:context])


def _first_apart(mixer: StaticAttention, x: Tensor) -> Tensor:
    """One token and head at a time: tokens of the first blocks are met by their projections, others by the usual."""
    options, tokens = mixer.options, x.shape[1]
    places = torch.arange(tokens).expand(len(x), -1)
    heads = [weights(x).unflatten(-1, (-1, 8)) for weights in (mixer.qkv, mixer.first_qkv)]
    q, k, v = zip(*(one.split([4, 2, 2], dim=2) for one in heads), strict=True)
    q, k = ([mixer.rotary(places, one) for one in kind] for kind in (q, k))
    out = torch.zeros(len(x), tokens, 4, 8)
    for t, h in torch.cartesian_prod(torch.arange(tokens), torch.arange(4)).tolist():
        seen = _seen(options, t, h // 2)
        by = [int(s < options.first * options.block_size) for s in seen]
        keys = torch.stack([k[one][:, s, h // 2] for s, one in zip(seen, by, strict=True)], 1)
        values = torch.stack([v[one][:, s, h // 2] for s, one in zip(seen, by, strict=True)], 1)
        asked = torch.stack([q[one][:, t, h] for one in by], 1)
        weights = ((asked * keys).sum(-1) * 8**-0.5).softmax(1)
        out[:, t, h] = (weights[..., None] * values).sum(1)
    return mixer.output(out)


@pytest.mark.parametrize("form", ["masked", "tiles", "reference"])
@pytest.mark.parametrize("name", ["first-apart", "first-apart-drawn"])
def test_first_blocks_are_met_by_projections_of_their_own(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longformer, arXiv 2004.05150, section 3.1, and decoded likewise."""
    if form == "tiles":
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference" if form == "reference" else "auto")
    torch.manual_seed(0)
    mixer = StaticAttention(PLUGIN, _options(name), SHAPE, LayerInfo()).eval()
    x = torch.randn(2, 41, 24)
    with torch.no_grad():
        wanted = _first_apart(mixer, x)
        assert_close(mixer(x, ctx=Context())[0], wanted, rtol=1e-4, atol=1e-5)
        state, found = mixer.init_state(2, 41), []
        y, state = mixer(x[:, :6], state=state, ctx=Context(want_state=True))
        for token in range(6, 30):
            one, state = mixer.step(x[:, token], state=state, ctx=Context())
            found.append(one)
        last, _ = mixer(x[:, 30:], state=state, ctx=Context())
    assert_close(torch.cat((y, torch.stack(found, 1), last), 1), wanted, rtol=1e-4, atol=1e-5)


def test_with_the_same_projections_twice_it_is_as_with_one() -> None:
    torch.manual_seed(0)
    apart = StaticAttention(PLUGIN, _options("first-apart"), SHAPE, LayerInfo())
    shared = StaticAttention(
        PLUGIN, PLUGIN.parse_options({"block_size": 4, "local": 2, "first": 2}), SHAPE, LayerInfo()
    )
    apart.load_state_dict({**shared.state_dict(), "first_qkv.weight": shared.qkv.weight})
    x = torch.randn(2, 40, 24)
    assert_close(apart(x, ctx=Context())[0], shared(x, ctx=Context())[0], rtol=1e-4, atol=1e-5)


def test_projections_of_no_blocks_are_refused() -> None:
    with pytest.raises(OptionsError, match="use first above 0"):
        PLUGIN.parse_options({"first": 0, "first_projections": True})


@pytest.mark.parametrize("name", ["longformer", "dilated", "bigbird", "first-apart"])
def test_ragged_sequences_go_on_from_what_is_kept(name: str) -> None:
    torch.manual_seed(0)
    options = _options(name)
    mixer = StaticAttention(PLUGIN, options, SHAPE, LayerInfo())
    x, ctx = torch.randn(2, 160, 24), Context()
    with torch.no_grad():
        whole, _ = mixer(x, ctx=ctx)
        state = mixer.init_state(2, 200)
        state.lengths += torch.tensor([3, 61])
        for row, length in enumerate((3, 61)):
            _, alone = mixer(x[row : row + 1, :length], state=mixer.init_state(1, 200), ctx=ctx)
            for tensor in state.tensors:
                state.tensors[tensor][row] = alone.tensors[tensor][0]
        at = [3, 61]
        for count in (5, 1, 40, 1, 17):
            pieces = torch.stack([x[row, start : start + count] for row, start in enumerate(at)])
            found, state = mixer(pieces, state=state, ctx=ctx)
            for row, start in enumerate(at):
                assert_close(found[row], whole[row, start : start + count], rtol=1e-4, atol=1e-5)
            at = [start + count for start in at]
    rows = kept_rows(options)
    assert state.tensors["k"].shape[1] == (200 if rows is None else rows)


@pytest.mark.arena
class TestStatic(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")
