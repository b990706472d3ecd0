"""Forgetting, sigmoid and stick-breaking attention: the op against loops over tokens, and what their papers say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from archsearch_plugins.full import FullPlugin, weights
from archsearch_plugins.full.ops import full_attention
from archsearch_plugins.full.weights import weighing, weighted_attention
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import KernelUnavailableError, OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.ops.laid_out import LaidOut

PLUGIN = FullPlugin()
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _softmax(scores: Tensor, forget: Tensor) -> Tensor:
    """FoX, arXiv 2503.02130: key j of n is forgotten by the gates j + 1 .. n - 1."""
    return (scores + torch.stack([forget[j + 1 :].sum() for j in range(len(scores))])).softmax(0)


def _sigmoid(scores: Tensor, forget: Tensor) -> Tensor:
    return 1 / (1 + len(scores) * (-scores).exp())


def _stick(scores: Tensor, forget: Tensor) -> Tensor:
    """A stick of length 1: each key, from the latest on, breaks off its share of what is left."""
    left, shares = torch.ones((), dtype=scores.dtype), [torch.zeros((), dtype=scores.dtype)]
    for score in scores[:-1].flip(0):
        shares.append(left * score.sigmoid())
        left = left * (1 - score.sigmoid())
    return torch.stack(shares).flip(0)


NAIVE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forgetting": _softmax,
    "sigmoid": _sigmoid,
    "stick-breaking": _stick,
}


def _token_by_token(name: str, q: Tensor, k: Tensor, v: Tensor, forget: Tensor) -> Tensor:
    before, rows = k.shape[1] - q.shape[1], []
    for b, t, h in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        seen = slice(0, before + t + 1)
        scores = k[b, seen, h // 2] @ q[b, t, h] * 8**-0.5
        rows.append(NAIVE[name](scores, forget[b, seen, h]) @ v[b, seen, h // 2])
    return torch.stack(rows).view(q.shape)


def _inputs(queries: int, keys: int, *, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(queries * 100 + keys)
    drawn = [torch.randn(2, n, h, 8, dtype=dtype) for n, h in ((queries, 4), (keys, 2), (keys, 2))]
    return [x.requires_grad_() for x in (*drawn, torch.nn.functional.logsigmoid(torch.randn(2, keys, 4, dtype=dtype)))]


def _op(name: str, q: Tensor, k: Tensor, v: Tensor, forget: Tensor, impl: str = "auto", length: int = 0) -> Tensor:
    order = torch.arange(k.shape[1] - q.shape[1], k.shape[1]).expand(len(q), -1)
    log_forget = forget if name == "forgetting" else None
    return weighted_attention(q, k, v, order, weighing(name, length), log_forget=log_forget, impl=impl)


@pytest.mark.parametrize("form", ["auto", "strips", "made-again", "reference"])
@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize(("queries", "keys"), [(2, 2), (1, 9), (13, 13), (7, 14)])
def test_op_equals_token_by_token(
    name: str, form: str, queries: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form in ("strips", "made-again"):
        monkeypatch.setattr(weights, "STRIP_TOKENS", 5)
        monkeypatch.setattr(weights, "HELD_ELEMENTS", 0 if form == "made-again" else 10**9)
    tensors = _inputs(queries, keys)
    trained = tensors if name == "forgetting" else tensors[:3]
    expected = _token_by_token(name, *tensors)
    actual = _op(name, *tensors, impl="reference" if form == "reference" else "auto")
    assert_close(actual, expected)
    loss = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * loss).sum(), trained),
        torch.autograd.grad((expected * loss).sum(), trained),
        strict=True,
    ):
        assert_close(found, wanted)


def test_forgetting_with_one_gate_for_all_tokens_is_alibi() -> None:
    """FoX, arXiv 2503.02130: a gate that asks no token is ALiBi (arXiv 2108.12409), of slope -log f."""
    q, k, v, _ = _inputs(30, 30)
    slope = torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=torch.float64)
    found = _op("forgetting", q, k, v, -slope.expand(2, 30, 4))
    distance = torch.arange(30)[:, None] - torch.arange(30)
    scores = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) * 8**-0.5 - slope[:, None, None] * distance
    shares = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
    assert_close(found, torch.einsum("bhts,bshd->bthd", shares, v.repeat_interleave(2, 2)))


def test_forgetting_with_open_gates_is_softmax_attention() -> None:
    q, k, v, forget = _inputs(30, 30)
    assert_close(_op("forgetting", q, k, v, torch.zeros_like(forget)), full_attention(LaidOut(q, k, v)))


def test_sums_of_forget_gates_keep_their_precision_far_on() -> None:
    q, k, v, _ = _inputs(2, 4000)
    forget = torch.nn.functional.logsigmoid(torch.randn(2, 4000, 4, dtype=torch.float64))
    wanted = _op("forgetting", q, k, v, forget)
    found = _op("forgetting", *(x.float() for x in (q, k, v, forget)))
    assert_close(found.double(), wanted, rtol=1e-5, atol=2e-6)


def test_weights_of_stick_breaking_sum_to_what_is_broken_off() -> None:
    """Stick-breaking attention, arXiv 2410.17980: the weights sum to 1 - prod(1 - b), and a token does not
    see itself."""
    q, k, v, forget = _inputs(30, 30)
    ones = torch.ones_like(v)
    scores = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) * 8**-0.5
    kept = (1 - scores.sigmoid()).tril(-1) + torch.ones(30, 30, dtype=torch.float64).triu()
    wanted = 1 - kept.prod(-1).transpose(1, 2)
    assert_close(_op("stick-breaking", q, k, ones, forget), wanted[..., None].expand(-1, -1, -1, 8))


def test_weights_of_stick_breaking_stay_finite_where_scores_are_large() -> None:
    q, k, v, forget = (x.detach() for x in _inputs(40, 40, dtype=torch.float32))
    q = (200 * q).requires_grad_()
    found = _op("stick-breaking", q, k, v, forget)
    (gradient,) = torch.autograd.grad(found.square().sum(), q)
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    assert_close(found.double(), _op("stick-breaking", *(x.double() for x in (q, k, v, forget))), rtol=1e-4, atol=1e-4)


def test_sigmoid_attention_without_scores_is_nearly_a_mean() -> None:
    """Sigmoid attention, arXiv 2409.04431: with an offset of -log n the weights sum to about 1; all alike
    they are 1 / (n + 1)."""
    q, k, v, forget = _inputs(30, 30)
    count = torch.arange(1, 31, dtype=torch.float64)[:, None, None]
    wanted = v.cumsum(1).repeat_interleave(2, 2) / (count + 1)
    assert_close(_op("sigmoid", 0 * q, k, v, forget), wanted)
    assert_close(_op("sigmoid", 0 * q, k, v, forget, length=64), v.cumsum(1).repeat_interleave(2, 2) / 65)


def test_no_kernel_takes_a_weighting() -> None:
    with pytest.raises(KernelUnavailableError, match="no such form"):
        _op("sigmoid", *_inputs(3, 3), impl="triton")


def _build(**options: Any) -> Mixer:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(options), SHAPE, LayerInfo())


@pytest.mark.parametrize("name", ["forgetting", "sigmoid", "stick-breaking", "path", "path-fox", "deltaformer"])
def test_ragged_sequences_go_on_from_their_caches(name: str) -> None:
    mixer, ctx = _build(**PLUGIN.presets[name]), Context()
    x, at = torch.randn(2, 90, 24), [3, 21]
    with torch.no_grad():
        whole, _ = mixer(x, ctx=ctx)
        state = mixer.init_state(2, 100)
        state.lengths += torch.tensor(at)
        for row, length in enumerate(at):
            _, alone = mixer(x[row : row + 1, :length], state=mixer.init_state(1, 100), ctx=ctx)
            for tensor in state.tensors:
                state.tensors[tensor][row] = alone.tensors[tensor][0]
        for count in (5, 1, 40, 1, 1, 17):
            pieces = torch.stack([x[row, start : start + count] for row, start in enumerate(at)])
            found, state = mixer(pieces, state=state, ctx=ctx)
            for row, start in enumerate(at):
                assert_close(found[row], whole[row, start : start + count], rtol=1e-4, atol=1e-5)
            at = [start + count for start in at]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigmoid_length": 9}, 'sigmoid_length=9 says nothing of weighting="softmax"'),
        ({"weighting": "sigmoid", "reflection_rank": 0}, 'use weighting="path", or reflection_rank=32'),
        ({"weighting": "delta", "reflection_conv": 1}, 'reflection_conv=1 says nothing of weighting="delta"'),
        ({"weighting": "soft"}, "weighting='soft'"),
    ],
)
def test_options_that_nothing_reads_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=re.escape(said)):
        PLUGIN.parse_options(options)
