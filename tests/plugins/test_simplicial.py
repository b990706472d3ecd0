"""2-simplicial attention: the op against loops over pairs, what it is with one second key, its rings, laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.simplicial import SimplicialPlugin, ops
from archsearch_plugins.simplicial.cost import simplicial_flops
from archsearch_plugins.simplicial.ops import Spans, simplicial_attention
from archsearch_plugins.simplicial.options import Score
from archsearch_plugins.sliding.ops import window_attention
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops.laid_out import LaidOut
from archsearch.testing import MixerConformance

PLUGIN = SimplicialPlugin()
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _inputs(tokens: int) -> list[Tensor]:
    torch.manual_seed(tokens)
    return [torch.randn(2, tokens, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2, 2, 2)]


def _products(q: Tensor, k: Tensor, k2: Tensor) -> Tensor:
    return torch.einsum("bhd,bjhd,blhd->bhjl", q, k, k2)


def _determinants(q: Tensor, k: Tensor, k2: Tensor) -> Tensor:
    """Of a head dim of 8: two groups of three channels, and two that are in none."""
    total = torch.zeros((), dtype=q.dtype)
    for group in ([0, 1, 4], [2, 3, 5]):
        rows = q[:, None, None, :, group], k[:, :, None, :, group], k2[:, None, :, :, group]
        total = total + torch.linalg.det(torch.stack(torch.broadcast_tensors(*rows), -1)).permute(0, 3, 1, 2)
    return total


SCORES = {"product": _products, "determinant": _determinants}


def _token_by_token(
    q: Tensor, k: Tensor, v: Tensor, k2: Tensor, v2: Tensor, window: int, second: int, score: Score = "product"
) -> Tensor:
    """Fast and Simplex, arXiv 2507.02754: softmax over pairs of sum_d q_d k_d k2_d (section 4), or of determinants of
    groups of three channels (section 5); sums of v * v2."""
    k, v, k2, v2 = (x.repeat_interleave(2, 2) for x in (k, v, k2, v2))
    rows = []
    for t in range(q.shape[1]):
        j, m = slice(max(0, t - window + 1), t + 1), slice(max(0, t - second + 1), t + 1)
        scores = SCORES[score](q[:, t], k[:, j], k2[:, m]) * 8**-0.5
        weights = scores.flatten(2).softmax(-1).view(scores.shape)
        rows.append(torch.einsum("bhjl,bjhd,blhd->bhd", weights, v[:, j], v2[:, m]))
    return torch.stack(rows, 1)


def _op(*inputs: Tensor, windows: tuple[int, int], score: Score = "product", impl: str = "auto") -> Tensor:
    q, k, v, k2, v2 = inputs
    first, second = ((0, 0, 0, 0, window - 1, 0) for window in windows)
    padded = {"k": F.pad(k, first), "v": F.pad(v, first), "k2": F.pad(k2, second), "v2": F.pad(v2, second)}
    return simplicial_attention(q, Spans(**padded, before=torch.zeros(2, dtype=torch.int64)), score=score, impl=impl)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("form", ["auto", "pieces", "reference"])
@pytest.mark.parametrize(("tokens", "window", "second"), [(1, 5, 2), (7, 20, 3), (37, 6, 4), (20, 2, 5), (18, 1, 1)])
def test_op_equals_token_by_token(
    tokens: int, window: int, second: int, form: str, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "pieces":
        monkeypatch.setattr(ops, "PIECE_ELEMENTS", 1)
    inputs = _inputs(tokens)
    expected = _token_by_token(*inputs, window, second, score)
    impl = "reference" if form == "reference" else "auto"
    actual = _op(*inputs, windows=(window, second), score=score, impl=impl)
    assert_close(actual, expected)
    loss = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * loss).sum(), inputs),
        torch.autograd.grad((expected * loss).sum(), inputs),
        strict=True,
    ):
        assert_close(found, wanted)


def test_with_second_keys_and_values_of_ones_it_is_the_window() -> None:
    """2-simplicial attention (arXiv 2507.02754) generalises dot products: with k2 = v2 = 1 each first key stands in as
    many pairs as any other, and softmax over pairs is softmax over first keys."""
    q, k, v, k2, _ = _inputs(40)
    ones = torch.ones_like(k2)
    for second in (1, 4):
        assert_close(_op(q, k, v, ones, ones, windows=(9, second)), window_attention(LaidOut(q, k, v), window=9))


def test_keys_of_both_windows_may_change_places() -> None:
    """The trilinear score is the same for (k, k2) and (k2, k)."""
    q, k, v, k2, v2 = _inputs(25)
    assert_close(_op(q, k, v, k2, v2, windows=(6, 6)), _op(q, k2, v2, k, v, windows=(6, 6)))


def test_a_determinant_changes_its_sign_where_keys_change_places() -> None:
    q, k, v, k2, v2 = _inputs(25)
    swapped = _op(-q, k2, v2, k, v, windows=(6, 6), score="determinant")
    assert_close(_op(q, k, v, k2, v2, windows=(6, 6), score="determinant"), swapped)


def test_determinants_stay_where_all_three_vectors_are_rotated_and_products_do_not() -> None:
    """Section 5 of arXiv 2507.02754: det(R a, R b, R c) = det(a, b, c) of a rotation R."""
    q, k, v, k2, v2 = _inputs(25)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)

    def turned(x: Tensor) -> Tensor:
        x = x.clone()
        for group in ([0, 1, 4], [2, 3, 5]):
            x[..., group] = x[..., group] @ turn
        return x

    for score, same in (("determinant", True), ("product", False)):
        before = _op(q, k, v, k2, v2, windows=(6, 4), score=score)
        after = _op(turned(q), turned(k), v, turned(k2), v2, windows=(6, 4), score=score)
        assert torch.allclose(before, after) == same


@torch.no_grad()
def test_positions_that_turn_determinants_count_from_one_token_to_another() -> None:
    torch.manual_seed(0)
    given = {"window": 7, "second_window": 3, "score": "determinant", "rope": 1.0, "rope_base": 100.0}
    mixer = PLUGIN.build(PLUGIN.parse_options(given), SHAPE, LayerInfo()).double()
    x, at = torch.randn(2, 30, 24, dtype=torch.float64), torch.arange(30).expand(2, -1)
    plain = mixer(x, ctx=Context(positions=at))[0]
    assert_close(mixer(x, ctx=Context(positions=at + 1000))[0], plain)
    assert not torch.allclose(mixer(x, ctx=Context(positions=at * 2))[0], plain)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rope": 0.5}, 'rope=0.5 says nothing of score="product", which changes.*use score="determinant"'),
        ({"score": "determinant", "rope_base": 100.0}, "rope_base=100.0 says nothing of rope=0: use rope above 0"),
    ],
)
def test_a_rotation_that_says_nothing_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        PLUGIN.parse_options(values)


def test_heads_without_a_group_of_three_channels_or_a_pair_that_turns_are_refused() -> None:
    options = PLUGIN.parse_options({"score": "determinant", "rope": 0.4})
    narrow, two = (replace(SHAPE, head_dim=width) for width in (2, 8))
    assert PLUGIN.check(options, narrow, LayerInfo()) == (
        "score = determinant of head_dim = 2: set 3 or more, or score = product"
    )
    assert "turns no pair of channels: choose rope = 0.5" in str(PLUGIN.check(options, two, LayerInfo()))
    assert PLUGIN.check(PLUGIN.parse_options({"score": "determinant", "rope": 0.5}), two, LayerInfo()) is None


def test_defaults_are_written_as_before() -> None:
    assert set(PLUGIN.parse_options({}).model_dump()) == {"window", "second_window", "qk_norm"}


def test_triples_are_those_that_are_seen() -> None:
    options = PLUGIN.parse_options({"window": 6, "second_window": 4})
    for context in (1, 3, 5, 40):
        triples = sum(min(t, 6) * min(t, 4) for t in range(1, context + 1))
        assert simplicial_flops(options, SHAPE, phase="prefill", context=context).exp == triples * 4


@pytest.mark.parametrize("more", [{}, {"score": "determinant", "rope": 1.0}], ids=["product", "determinant"])
def test_ragged_sequences_go_on_from_their_rings(more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    mixer = PLUGIN.build(PLUGIN.parse_options({"window": 7, "second_window": 3, **more}), SHAPE, LayerInfo())
    x, ctx, at = torch.randn(2, 70, 24), Context(), [2, 21]
    with torch.no_grad():
        whole, _ = mixer(x, ctx=ctx)
        state = mixer.init_state(2, 80)
        state.lengths += torch.tensor(at)
        for row, length in enumerate(at):
            _, alone = mixer(x[row : row + 1, :length], state=mixer.init_state(1, 80), ctx=ctx)
            for tensor in state.tensors:
                state.tensors[tensor][row] = alone.tensors[tensor][0]
        for count in (3, 1, 20, 1, 1, 9):
            pieces = torch.stack([x[row, start : start + count] for row, start in enumerate(at)])
            found, state = mixer(pieces, state=state, ctx=ctx)
            for row, start in enumerate(at):
                assert_close(found[row], whole[row, start : start + count], rtol=1e-4, atol=1e-5)
            at = [start + count for start in at]


@pytest.mark.arena
class TestSimplicial(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")
