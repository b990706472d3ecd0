"""Full attention over packed sequences and after cached tokens on the card against explicit products in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from archsearch_plugins.full.triton.table import TABLE
from gpu_checks import LONG, MANY, PACKED, Op, check, check_past, on_card, rows_of, uneven
from test_full_ranges import Case
from torch import Tensor

from archsearch.kernels import Key

NAMES = ("q", "k", "v")
rows = pytest.mark.parametrize("key", rows_of(TABLE))
proves = pytest.mark.proves(TABLE)


def held(case: Case) -> dict[str, Tensor]:
    return on_card(dict(zip(NAMES, case.inputs(torch.float32), strict=True)), NAMES)


def op(case: Case, impl: str) -> Op:
    return lambda x: (case.run([x[name] for name in NAMES], impl),)


def check_case(key: Key, case: Case) -> None:
    with TABLE.forced(key):
        check(op(case, "triton"), op(case, "reference"), held(case), trained=NAMES)


def packed(total: int, count: int, dim: int) -> Case:
    lengths = uneven(total, count).diff().tolist()
    return Case(tokens=total, packed=tuple(lengths), dim=dim, heads=4, key_heads=2)


@pytest.mark.sample(tokens=65, heads=(4, 2))
@rows
@proves
@pytest.mark.parametrize("tokens", [1, 15, 63, 64, 65, 100, 256, 1000])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)], ids=lambda heads: f"H{heads[0]}over{heads[1]}")
def test_lengths(key: Key, tokens: int, heads: tuple[int, int]) -> None:
    check_case(key, Case(tokens=tokens, dim=key[1], heads=heads[0], key_heads=heads[1], batch=2))


@pytest.mark.sample(tokens=15)
@rows
@proves
@pytest.mark.parametrize("tokens", [1, 15, 64, 65, 300])
def test_after_cached_tokens(key: Key, tokens: int) -> None:
    filled = (tokens, 1000, 513, tokens + 1)
    check_case(key, Case(tokens=tokens, keys=1000, filled=filled, dim=key[1], heads=4, key_heads=2, batch=4))


@rows
@proves
def test_many_packed_sequences(key: Key) -> None:
    check_case(key, packed(PACKED, MANY, key[1]))


@rows
@proves
def test_more_tokens_than_16_bits_count(key: Key) -> None:
    case = packed(LONG, 40, key[1])
    check_case(key, dataclasses.replace(case, heads=2, key_heads=1))


@rows
@proves
def test_narrower_heads(key: Key) -> None:
    check_case(key, Case(tokens=150, packed=(70, 80), dim=key[1] - 4))


@rows
@proves
def test_the_past_does_not_see_the_future(key: Key) -> None:
    case = Case(tokens=300, packed=(100, 200), dim=key[1], heads=4)
    with TABLE.forced(key):
        check_past(op(case, "triton"), held(case), NAMES, 177)
