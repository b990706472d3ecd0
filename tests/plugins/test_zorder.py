"""Attention along a Z-order curve: places, neighbours and weights against loops, its identity, costs, laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.zorder import ZOrderPlugin, ops
from archsearch_plugins.zorder.cost import seen_keys, seen_pairs
from archsearch_plugins.zorder.curve import neighbours, places
from archsearch_plugins.zorder.ops import cauchy_attention
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import pieces
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = ZOrderPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
SMALL = {
    "zeta": {"top_k": 4, "chunk": 4, "own": False},
    "own-chunk": {"top_k": 5, "chunk": 4, "key_dim": 2},
}


def layer_of(values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).eval()


def test_the_curve_takes_the_channels_bit_by_bit_in_turn() -> None:
    """Four cells of a square in the shape of the letter, and a loop over strings of bits."""
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    assert places(corners, 1).tolist() == [0, 1, 2, 3]
    points = torch.randn(50, 3)
    for point, place in zip(points, places(points, 5).tolist(), strict=True):
        bits = [f"{int(x.sigmoid() * 32):05b}" for x in point]
        assert place == int("".join("".join(turn) for turn in zip(*bits, strict=True)), 2)


def around(query: int, keys: list[int], count: int) -> list[int]:
    """Of keys the tokens around the place of a query, in the words of the README."""
    ordered = sorted(range(len(keys)), key=lambda s: keys[s])
    at = sum(key < query for key in keys)
    start = max(0, min(at - count // 2, len(keys) - count))
    return sorted(ordered[start : start + count])


@pytest.mark.parametrize("elements", [2**22, 1], ids=["at once", "chunk by chunk"])
def test_neighbours_lie_around_a_query_in_complete_chunks(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ELEMENTS", elements)
    known = torch.randint(0, 40, (2, 2, 23))
    asked = torch.randint(0, 40, (2, 4, 23))
    for starts, count in ([0, 0], 23), ([9, 4], 6):
        order = torch.tensor(starts)[:, None] + torch.arange(count)
        found = neighbours(asked[:, :, :count], known, order, 4, 5)
        for b, h, t in torch.cartesian_prod(*map(torch.arange, (2, 4, count))).tolist():
            before = int(order[b, t]) // 4 * 4
            wanted = around(int(asked[b, h, t]), known[b, h // 2, :before].tolist(), 5)
            assert sorted(s for s in found[b, h, t].tolist() if s >= 0) == wanted


def by_the_rule(layer: Any, x: Tensor) -> Tensor:
    """One token and head at a time, x `[T, D]`."""
    options, outputs = layer.given, []
    q, k, v = (one[0] for one in layer.project(x[None], Context()))
    width, codes = torch.sigmoid(layer.width), [places(one, options.bits) for one in (q, k)]
    for t in range(len(x)):
        past, heads = t // options.chunk * options.chunk, []
        for h in range(4):
            g = h // 2
            seen = around(int(codes[0][t, h]), codes[1][:past, g].tolist(), options.top_k)
            seen = seen + (list(range(past, t + 1)) if options.own else [])
            keys = torch.cat((k[seen, g], k[: t + 1, g].mean(0)[None]))
            values = torch.cat((v[seen, g], v[: t + 1, g].mean(0)[None]))
            weights = 1 / ((q[t, h] - keys).square().sum(-1) + width**2)
            heads.append(weights @ values / weights.sum())
        outputs.append(layer.out(torch.cat(heads)))
    return torch.stack(outputs)


@pytest.mark.parametrize("impl", ["chunkwise", "reference", "pieces"])
@pytest.mark.parametrize("values", SMALL.values(), ids=SMALL.keys())
def test_a_layer_follows_the_rule(values: dict[str, Any], impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, gradients too; "pieces" are the forms that long sequences take."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference" if impl == "reference" else "chunkwise")
    if impl == "pieces":
        monkeypatch.setattr(ops, "PIECE_TOKENS", 7)
        monkeypatch.setattr(ops, "KEYS_A_ROW", 0)
    layer = layer_of(values).double()
    x = torch.randn(1, 21, 32, dtype=torch.float64)
    out, wanted = layer(x, ctx=Context())[0], by_the_rule(layer, x[0])[None]
    assert_close(out, wanted, rtol=1e-9, atol=1e-9)
    weights = list(layer.parameters())
    for got, right in zip(*(torch.autograd.grad(y.sin().sum(), weights) for y in (out, wanted)), strict=True):
        assert_close(got, right, rtol=1e-8, atol=1e-8)


def test_with_every_key_chosen_it_is_attention_by_a_cauchy_kernel() -> None:
    """ZETA, arXiv 2501.14577, section 3: what top-k attention stands for."""
    layer, x = layer_of({"top_k": 40, "chunk": 1, "own": True}), torch.randn(2, 30, 32)
    q, k, v = (one.transpose(1, 2) for one in layer.project(x, Context()))
    k, v = (one.repeat_interleave(2, 1) for one in (k, v))
    mean_k, mean_v = (one.cumsum(2) / torch.arange(1, 31)[:, None] for one in (k, v))
    gamma = torch.sigmoid(layer.width) ** 2
    pairs = (1 / (torch.cdist(q, k).square() + gamma)).tril()
    mean = 1 / ((q - mean_k).square().sum(-1, keepdim=True) + gamma)
    dense = (pairs @ v + mean * mean_v) / (pairs.sum(-1, keepdim=True) + mean)
    assert_close(layer(x, ctx=Context())[0], layer.out(dense.transpose(1, 2).flatten(2)), rtol=1e-4, atol=1e-5)


def test_weights_fall_with_the_square_of_the_distance() -> None:
    """Two keys, at distances 1 and 2 from the query, and a kernel without width: four to one."""
    q, k = torch.zeros(1, 1, 1, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    v, far = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.full((1, 1, 1, 1), 1e6)
    chosen, width = torch.tensor([0, 1]).view(1, 1, 1, 2), torch.tensor(1e-6)
    out = cauchy_attention(q, (k, v), (far, torch.zeros(1, 1, 1, 1)), chosen, width)
    assert_close(out.flatten(), torch.tensor([0.8]))


COSTED = {**SMALL, "zeta-32": dict(PLUGIN.presets["zeta"]), "single": {"top_k": 6, "chunk": 1, "own": False}}


@pytest.mark.parametrize("values", COSTED.values(), ids=COSTED.keys())
def test_counts_and_matmul_flops_are_those_of_the_rule(values: dict[str, Any]) -> None:
    options = PLUGIN.parse_options(values)
    for context in (1, 7, 40, 131):
        past = [t // options.chunk * options.chunk for t in range(context)]
        seen = [min(before, options.top_k) + (t + 1 - before if options.own else 0) for t, before in enumerate(past)]
        assert seen_keys(options, context) == seen[-1]
        assert seen_pairs(options, context) == sum(seen)
    layer, x = layer_of(values), torch.randn(1, 120, 32)
    with torch.no_grad():
        _, state = layer(x[:, :-1], state=layer.init_state(1, 120), ctx=Context(want_state=True))
        counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context(want_state=True)))
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=120).matmul
    assert said == pytest.approx(counted, rel=0.05)


def test_bad_options_are_refused_with_the_remedy() -> None:
    with pytest.raises(OptionsError, match="use fewer of either"):
        PLUGIN.parse_options({"key_dim": 8, "bits": 8})
    with pytest.raises(OptionsError, match=r"zorder\(chunk=0\)"):
        PLUGIN.parse_options({"chunk": 0})


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "no_token_sees_the_future",
    "gradients_are_finite_and_reach_every_parameter",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_zeta_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, SMALL["zeta"], tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestZOrderConformance(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")


@pytest.mark.arena
class TestZOrderConformanceOfManyKeys(MixerConformance):
    """The forms that many keys take."""

    plugin = PLUGIN

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ops, "KEYS_A_ROW", 0)
        monkeypatch.setattr(ops, "PIECE_TOKENS", 32)
