"""Removals of the delta rules: every form against a recurrence in float64, and the papers' identities."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear.ops import linear_attention, linear_attention_step
from archsearch_plugins.linear.tokens import Removal, Tokens
from linear_cases import assert_near
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import KernelUnavailableError
from archsearch.ops.softmax import ShapeError

DECAYS = ["none", "constant", "head", "channel"]
KINDS = {"written-late": (False, False), "written-early": (False, True), "apart-late": (True, False)}
KINDS |= {"apart-early": (True, True)}
"""Whether what is taken away lies apart from the written key, and whether it is read before the decay."""

Drawn = dict[str, Tensor]


def drawn(T: int, decay: str, apart: bool, *, low: float = -2.0, B: int = 2, H: int = 2, K: int = 8) -> Drawn:
    """Inputs in float64, of values that float32 holds; what is taken away shrinks the state or leaves it as large."""
    draw = torch.Generator().manual_seed(0)
    unit = F.normalize(torch.randn(B, T, H, K, generator=draw), dim=-1)
    rate = torch.rand(B, T, H, K, generator=draw)
    given = {
        "q": torch.randn(B, T, H, K, generator=draw),
        "k": torch.randn(B, T, H, K, generator=draw) if apart else unit,
        "v": torch.randn(B, T, H, 6, generator=draw),
        "read": unit if apart else unit * rate,
        "state": torch.randn(B, H, K, 6, generator=draw),
    }
    gates = {"none": None, "constant": (H,), "head": (B, T, H), "channel": (B, T, H, K)}[decay]
    if gates is not None:
        given["log_decay"] = low * torch.rand(*gates, generator=draw)
    if apart:
        given["along"] = unit * rate
    return {name: x.double() for name, x in given.items()}


def tokens_of(given: Drawn, early: bool) -> Tokens:
    removal = Removal(read=given["read"], along=given.get("along"), early=early)
    return Tokens(given["q"], given["k"], given["v"], log_decay=given.get("log_decay"), removal=removal)


def by_token(given: Drawn, early: bool) -> tuple[Tensor, Tensor]:
    """The recurrence, written out."""
    state, outputs, along = given["state"], [], given.get("along", given["k"])
    for t in range(given["q"].shape[1]):
        before = state
        if "log_decay" in given:
            gate = given["log_decay"]
            gate = gate[:, t] if gate.dim() > 1 else gate
            state = state * (gate if gate.dim() == 3 else gate[..., None]).exp()[..., None]
        recalled = torch.einsum("bhkv,bhk->bhv", before if early else state, given["read"][:, t])
        state = state - torch.einsum("bhk,bhv->bhkv", along[:, t], recalled)
        state = state + torch.einsum("bhk,bhv->bhkv", given["k"][:, t], given["v"][:, t])
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, given["q"][:, t]))
    return torch.stack(outputs, 1), state


def graded(given: Drawn, dtype: torch.dtype, run: Any) -> dict[str, Tensor]:
    """Output, last state and all gradients."""
    given = {name: x.to(dtype).detach().requires_grad_() for name, x in given.items()}
    made = run(given)
    draw = torch.Generator().manual_seed(1)
    torch.autograd.backward(made, [torch.randn(x.shape, generator=draw).to(x.dtype) for x in made])
    found = dict(zip(("o", "last"), (x.detach() for x in made), strict=True))
    return found | {f"d_{name}": x.grad for name, x in given.items()}  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 90, *(pytest.param(T, marks=pytest.mark.arena) for T in (65, 150))])
def test_chunkwise_in_float32_equals_the_recurrence_in_float64(T: int, decay: str, kind: str) -> None:
    apart, early = KINDS[kind]
    given = drawn(T, decay, apart)
    expected = graded(given, torch.float64, lambda x: by_token(x, early))
    for impl, dtype, limit in (("chunkwise", torch.float32, 1e-5), ("reference", torch.float64, 1e-9)):
        found = graded(given, dtype, lambda x, impl=impl: attended(x, early, impl))
        if T == 1 and early and "log_decay" in given:  # the decay reaches no output but by the state
            expected = {name: x for name, x in expected.items() if x.any()}
        assert_near(found, expected, limit)


def attended(given: Drawn, early: bool, impl: str = "chunkwise", **beside: Any) -> tuple[Tensor, Tensor]:
    return linear_attention(tokens_of(given, early), scale=1.0, initial_state=given["state"], impl=impl, **beside)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_gates_among_open_ones(kind: str) -> None:
    apart, early = KINDS[kind]
    given = drawn(130, "channel", apart, low=-1.0)
    which = torch.randint(8, given["log_decay"].shape, generator=torch.Generator().manual_seed(2))
    given["log_decay"][which == 0], given["log_decay"][which == 1] = -1000.0, 0.0
    expected = graded(given, torch.float64, lambda x: by_token(x, early))
    assert_near(graded(given, torch.float32, lambda x: attended(x, early)), expected, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", ["constant", "channel"])
def test_steps_pieces_and_packed_sequences_equal_the_whole(decay: str, kind: str) -> None:
    apart, early = KINDS[kind]
    given = drawn(90, decay, apart)
    tokens, state = tokens_of(given, early), given["state"]
    o, last = linear_attention(tokens, initial_state=state)
    for start, end in itertools.pairwise((0, 0, 1, 71, 90)):
        piece, state = linear_attention(part(tokens, start, end), initial_state=state)
        assert_close(piece, o[:, start:end])
    assert_close(state, last)
    state = given["state"]
    for t in range(90):
        one, state = linear_attention_step(part(tokens, t, t + 1).only(), state)
        assert_close(one, o[:, t])
    bounds = torch.tensor([0, 2, 2, 70, 90])
    first = part(tokens, 0, 90, slice(0, 1))
    packed, _ = linear_attention(first, cu_seqlens=bounds)
    apart_ = [linear_attention(part(first, a, b))[0] for a, b in itertools.pairwise(bounds.tolist()) if b > a]
    assert_close(packed, torch.cat(apart_, 1))


def part(tokens: Tokens, start: int, end: int, rows: slice = slice(None)) -> Tokens:
    def cut(x: Tensor) -> Tensor:
        return x[rows, start:end]

    gates = tokens.log_decay
    assert gates is not None
    assert tokens.removal is not None
    gates = cut(gates) if gates.dim() > 1 else gates
    return Tokens(cut(tokens.q), cut(tokens.k), cut(tokens.v), log_decay=gates, removal=tokens.removal.map(cut))


def test_identity_of_gated_deltanet_2_equal_gates_are_kda() -> None:
    """arXiv 2605.22791: with b = w = beta the rule is that of arXiv 2510.26692."""
    given = drawn(80, "channel", apart=False)
    beta = torch.rand(2, 80, 2, dtype=torch.float64)
    kda = Tokens(given["q"], given["k"], given["v"], log_decay=given["log_decay"], beta=beta)
    gated = replace(kda, beta=None, v=kda.v * beta[..., None], removal=Removal(read=kda.k * beta[..., None]))
    assert_near(*({"o": o, "last": last} for o, last in map(linear_attention, (gated, kda))), 1e-12)


def test_identity_of_comba_without_decay_a_full_share_is_the_delta_rule() -> None:
    """arXiv 2506.02475: the removal key p = b k with b = 1, and alpha = 1."""
    given = drawn(80, "none", apart=False)
    beta = torch.rand(2, 80, 2, dtype=torch.float64)
    plain = Tokens(given["q"], given["k"], given["v"], beta=beta)
    comba = replace(
        plain, beta=None, v=plain.v * beta[..., None], removal=Removal(read=plain.k * beta[..., None], early=True)
    )
    assert_near(*({"o": o, "last": last} for o, last in map(linear_attention, (comba, plain))), 1e-12)


def test_identity_of_dplr_without_decay_one_rate_and_a_unit_removal_key_is_a_delta_rule() -> None:
    """arXiv 2503.14456: S (I - kappa^T (a kappa)) + v^T k with k = a kappa."""
    given = drawn(80, "none", apart=True)
    kappa, rate = given["read"], torch.rand(2, 80, 2, dtype=torch.float64)
    written = kappa * rate[..., None]
    dplr = Tokens(given["q"], written, given["v"], removal=Removal(read=kappa, along=written, early=True))
    delta = Tokens(given["q"], kappa, given["v"], beta=rate)
    assert_near(*({"o": o, "last": last} for o, last in map(linear_attention, (dplr, delta))), 1e-12)


def test_removals_that_do_not_fit_are_named() -> None:
    given = drawn(7, "none", apart=True)
    tokens = tokens_of(given, early=False)
    with pytest.raises(ShapeError, match=r"removal.read is \[2, 7, 2, 6\] float64: expected \[2, 7, 2, 8\]"):
        linear_attention(replace(tokens, removal=Removal(read=given["v"])))
    with pytest.raises(ShapeError, match=r"beta is .*: expected none beside a removal"):
        linear_attention(replace(tokens, beta=torch.ones(2, 7, 2)))
    with pytest.raises(KernelUnavailableError, match="has no such form"):
        linear_attention(tokens, impl="triton")
