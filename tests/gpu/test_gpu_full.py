"""The decode kernels of full attention on the card against explicit products in float64."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.full.ops import full_attention_step
from archsearch_plugins.full.triton.table import TABLE
from gpu_checks import LONG, Op, check, few, on_card, rows_of
from test_full_kernels import Case, make_inputs

from archsearch.kernels import Key

NAMES = ("q", "k", "v")
rows = pytest.mark.parametrize("key", rows_of(TABLE))
proves = pytest.mark.proves(TABLE)


def step(impl: str) -> Op:
    return lambda x: (full_attention_step(x["q"], x["k"], x["v"], x["lengths"], impl=impl),)


def check_case(key: Key, case: Case) -> None:
    inputs = on_card(dict(zip((*NAMES, "lengths"), make_inputs(case), strict=True)), NAMES)
    with TABLE.forced(key):
        check(step("triton"), step("reference"), inputs)


@pytest.mark.sample(length=65, heads=(4, 2))
@rows
@proves
@pytest.mark.parametrize("length", [1, 15, 63, 64, 65, 100, 256, 1000, LONG])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (16, 1), (70, 1)], ids=lambda heads: f"H{heads[0]}over{heads[1]}")
def test_lengths(key: Key, length: int, heads: tuple[int, int]) -> None:
    check_case(key, Case(length, (length, max(1, length // 2), 1), *heads, key[1]))


@rows
@proves
def test_many_uneven_sequences(key: Key) -> None:
    lengths = torch.randint(1, 900, (few(64, 9),), generator=torch.Generator().manual_seed(1)).tolist()
    check_case(key, Case(900, tuple(lengths), 4, 2, key[1]))


@rows
@proves
def test_narrower_heads(key: Key) -> None:
    check_case(key, Case(300, (300, 77), 4, 2, key[1] - 4))


@rows
@proves
def test_a_sequence_without_rows_gives_zeros(key: Key) -> None:
    q, k, v, lengths = make_inputs(Case(300, (300, 5), 4, 2, key[1]))
    inputs = on_card({"q": q, "k": k, "v": v, "lengths": lengths * torch.tensor([1, 0])}, NAMES)
    with TABLE.forced(key):
        out = step("triton")(inputs)[0]
    assert not out[1].any()
