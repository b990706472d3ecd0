"""The kernels of native sparse attention on the card against the explicit form in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from archsearch_plugins.nsa.triton.table import TABLE
from gpu_checks import DTYPE, LONG, MANY, PACKED, Op, check, check_past, few, on_card, rows_of, uneven
from gpu_choices import after_cached, clear_nsa
from test_nsa_kernels import Case, filled_cache
from torch import Tensor

from archsearch.kernels import Key
from archsearch.ops.block_cache import write_mean, write_means
from archsearch.ops.laid_out import LaidOut

NAMES = ("q", "k", "v", "gates")
LENGTHS = [1, 15, 33, 63, 64, 65, 100, 256, 1000]
rows = pytest.mark.parametrize("key", rows_of(TABLE))
proves = pytest.mark.proves(TABLE)


def grouped(tokens: int, dim: int, **changes: Any) -> Case:
    case = Case(tokens=tokens, block_size=16, top_k=4, window=20, dim=dim, heads=4, key_heads=2)
    return dataclasses.replace(case, **changes)


def held(case: Case) -> dict[str, Tensor]:
    """Each block of keys about a point of its own, which makes most choices clear."""
    return on_card(dict(zip(NAMES, case.inputs(torch.float16), strict=True)), NAMES)


def op(case: Case, impl: str, bounds: Tensor | None = None, lengths: Tensor | None = None) -> Op:
    def run(inputs: dict[str, Tensor]) -> tuple[Tensor]:
        q, k, v, gates = (inputs[name] for name in NAMES)
        out = nsa_attention(
            LaidOut(q, k, v, cu_seqlens=bounds, lengths=lengths),
            gates=gates,
            sizes=NsaSizes(block_size=case.block_size, top_k=case.top_k, window=case.window),
            impl=impl,
        )
        return (out,)

    return run  # type: ignore[return-value]


def check_case(key: Key, case: Case, *, bounds: Tensor | None = None, exact: str = "reference") -> None:
    inputs = held(case)
    bounds = None if bounds is None else bounds.to(inputs["q"].device)
    clear = clear_nsa(inputs["q"], inputs["k"], bounds, block_size=case.block_size, top_k=case.top_k)
    with TABLE.forced(key):
        check(op(case, "triton", bounds), op(case, exact, bounds), inputs, trained=NAMES, decided=clear)


@pytest.mark.sample(tokens=33)
@rows
@proves
@pytest.mark.parametrize("tokens", LENGTHS)
def test_lengths(key: Key, tokens: int) -> None:
    check_case(key, grouped(tokens, key[1], batch=2))


@pytest.mark.sample(block_size=7)
@rows
@proves
@pytest.mark.parametrize(
    ("block_size", "top_k", "window"), [(16, 1, 1), (32, 2, 400), (7, 5, 70)], ids=["own-block", "wide", "odd"]
)
def test_blocks(key: Key, block_size: int, top_k: int, window: int) -> None:
    check_case(key, grouped(few(300, 40), key[1], block_size=block_size, top_k=top_k, window=window))


@rows
@proves
def test_narrower_heads_in_a_group_of_3(key: Key) -> None:
    check_case(key, grouped(few(150, 40), key[1] - 4, heads=3, key_heads=1))


@rows
@proves
def test_a_group_of_16(key: Key) -> None:
    check_case(key, grouped(few(400, 40), key[1], heads=16, key_heads=1, block_size=32))


@rows
@proves
def test_more_tokens_than_16_bits_count(key: Key) -> None:
    case = grouped(LONG, key[1], block_size=64, top_k=4, window=100, heads=2, key_heads=1)
    check_case(key, case, exact="chunkwise")


@rows
@proves
def test_many_packed_sequences(key: Key) -> None:
    check_case(key, grouped(PACKED, key[1]), bounds=uneven(PACKED, MANY))


@rows
@proves
def test_after_cached_tokens(key: Key) -> None:
    tokens, keys = few(65, 9), few(300, 40)
    case = grouped(tokens, key[1], keys=keys, batch=4, filled=(tokens, keys, keys // 2, tokens + 1))
    inputs, lengths = held(case), torch.tensor(case.filled)
    sizes = {"block_size": case.block_size, "top_k": case.top_k}
    clear = after_cached(clear_nsa, inputs["q"], inputs["k"], lengths, **sizes)
    lengths = lengths.to(inputs["q"].device)
    with TABLE.forced(key):
        check(
            op(case, "triton", None, lengths),
            op(case, "reference", None, lengths),
            inputs,
            trained=NAMES,
            decided=clear,
        )


@rows
@proves
def test_the_past_does_not_see_the_future(key: Key) -> None:
    case = grouped(few(300, 50), key[1])
    with TABLE.forced(key):
        check_past(op(case, "triton"), held(case), NAMES, few(177, 35))


@pytest.mark.sample(block_size=8, top_k=4)
@rows
@proves
@pytest.mark.parametrize(("block_size", "top_k", "window"), [(8, 1, 100), (8, 4, 20), (70, 3, 64), (5, 2, 3)])
def test_step(key: Key, block_size: int, top_k: int, window: int) -> None:
    lengths = torch.tensor([1, 7, 64, 90])
    names = ("q", "k", "v", "k_means", "v_means", "gates")
    tensors = dict(zip(names, filled_cache(lengths, 4, 2, key[1], block_size), strict=True))
    inputs = on_card({**tensors, "lengths": lengths}, names)

    def stepping(impl: str) -> Op:
        def run(x: dict[str, Tensor]) -> tuple[Tensor]:
            cache = NsaCache(**{name: x[name] for name in (*names[1:5], "lengths")})
            sizes = NsaSizes(block_size=block_size, top_k=top_k, window=window)
            return (nsa_attention_step(x["q"], cache, gates=x["gates"], sizes=sizes, impl=impl),)

        return run  # type: ignore[return-value]

    clear = torch.stack([_clear_step(inputs, row, block_size, top_k) for row in range(len(lengths))])
    with TABLE.forced(key):
        check(stepping("triton"), stepping("chunkwise"), inputs, decided=clear)


def _clear_step(inputs: dict[str, Tensor], row: int, block_size: int, top_k: int) -> Tensor:
    """`[H]` of one sequence: as if its last token were one of a sequence."""
    length = int(inputs["lengths"][row])
    k = inputs["k"][row : row + 1, :length]
    q = inputs["q"][row : row + 1, None].expand(1, length, -1, -1)
    return clear_nsa(q, k, None, block_size=block_size, top_k=top_k)[0, -1]


@rows
@proves
def test_means_are_written_as_blocks_complete(key: Key) -> None:
    lengths = torch.tensor([7, 8, 64, 90])
    inputs = on_card({"k": filled_cache(lengths, 1, 2, key[1], 8)[1], "lengths": lengths}, ["k"])
    blank = torch.full((4, 12, 2, key[1]), -1.0, device=inputs["k"].device, dtype=DTYPE)
    with TABLE.forced(key):
        got = write_mean(blank.clone(), inputs["k"], inputs["lengths"], block_size=8, table=TABLE, impl="triton")
    right = write_means(blank.double(), inputs["k"].double(), inputs["lengths"] - 1, 1, 8)
    torch.testing.assert_close(got.double(), right, rtol=1e-2, atol=1e-3)
