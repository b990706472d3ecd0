"""The kernels of mixture of block attention on the card against the explicit form in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from archsearch_plugins.moba.ops import moba_attention, moba_attention_step
from archsearch_plugins.moba.triton.launch import sequences as launch
from archsearch_plugins.moba.triton.table import TABLE
from gpu_checks import DTYPE, LONG, MANY, PACKED, Op, check, check_past, few, on_card, rows_of, uneven
from gpu_choices import after_cached, clear_moba
from test_moba_kernels import Case, filled_cache
from torch import Tensor

from archsearch.kernels import Key
from archsearch.ops.block_cache import BlockCache, write_mean, write_means
from archsearch.ops.laid_out import LaidOut

NAMES = ("q", "k", "v")
LENGTHS = [1, 15, 63, 64, 65, 100, 256, 1000]
rows = pytest.mark.parametrize("key", rows_of(TABLE))
proves = pytest.mark.proves(TABLE)


def grouped(tokens: int, dim: int, **changes: Any) -> Case:
    case = Case(tokens=tokens, block_size=16, top_k=3, dim=dim, heads=4, key_heads=2)
    return dataclasses.replace(case, **changes)


def held(case: Case) -> dict[str, Tensor]:
    """Each block of keys about a point of its own, which makes most choices clear."""
    return on_card(dict(zip(NAMES, case.inputs(torch.float16), strict=True)), NAMES)


def op(case: Case, impl: str, bounds: Tensor | None = None, lengths: Tensor | None = None) -> Op:
    def run(inputs: dict[str, Tensor]) -> tuple[Tensor]:
        q, k, v = (inputs[name] for name in NAMES)
        out = moba_attention(
            LaidOut(q, k, v, cu_seqlens=bounds, lengths=lengths),
            block_size=case.block_size,
            top_k=case.top_k,
            impl=impl,
        )
        return (out,)

    return run  # type: ignore[return-value]


def check_case(key: Key, case: Case, *, bounds: Tensor | None = None, exact: str = "reference") -> None:
    inputs = held(case)
    bounds = None if bounds is None else bounds.to(inputs["q"].device)
    clear = clear_moba(inputs["q"], inputs["k"], bounds, block_size=case.block_size, top_k=case.top_k)
    with TABLE.forced(key):
        check(op(case, "triton", bounds), op(case, exact, bounds), inputs, trained=NAMES, decided=clear)


@pytest.mark.sample(tokens=65)
@rows
@proves
@pytest.mark.parametrize("tokens", LENGTHS)
def test_lengths(key: Key, tokens: int) -> None:
    check_case(key, grouped(tokens, key[1], batch=2))


@pytest.mark.sample(block_size=7)
@rows
@proves
@pytest.mark.parametrize(("block_size", "top_k"), [(16, 1), (64, 2), (7, 4), (1, 5)])
def test_blocks(key: Key, block_size: int, top_k: int) -> None:
    check_case(key, grouped(few(300, 60), key[1], block_size=block_size, top_k=top_k))


@rows
@proves
def test_narrower_heads(key: Key) -> None:
    check_case(key, grouped(150, key[1] - 4, heads=3, key_heads=1))


@rows
@proves
def test_more_tokens_than_16_bits_count(key: Key) -> None:
    check_case(key, grouped(LONG, key[1], block_size=512, heads=2, key_heads=1), exact="chunkwise")


@rows
@proves
def test_many_packed_sequences(key: Key) -> None:
    check_case(key, grouped(PACKED, key[1]), bounds=uneven(PACKED, MANY))


@rows
@proves
def test_after_cached_tokens(key: Key) -> None:
    tokens, keys = few(65, 17), few(300, 70)
    case = grouped(tokens, key[1], keys=keys, batch=4, filled=(tokens, keys, keys // 2, tokens + 1))
    inputs, lengths = held(case), torch.tensor(case.filled)
    sizes = {"block_size": case.block_size, "top_k": case.top_k}
    clear = after_cached(clear_moba, inputs["q"], inputs["k"], lengths, **sizes)
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
    case = grouped(300, key[1])
    with TABLE.forced(key):
        check_past(op(case, "triton"), held(case), NAMES, 177)


@rows
@proves
def test_what_is_chosen_scores_best(key: Key) -> None:
    case = grouped(90, key[1], block_size=8, top_k=4, batch=2)
    q, k, v = held(case).values()
    with TABLE.forced(key), torch.no_grad():
        x, row, blocks = launch._prepare(LaidOut(q, k, v), 8, 1.0)
        chosen = launch._choose(x, blocks, 3, row).view(2, 90, 4, 3).long()
    means = k.double()[:, :88].unflatten(1, (11, 8)).mean(2).to(DTYPE).double().repeat_interleave(2, 2)
    scores = torch.einsum("bthd,bnhd->bthn", q.double(), means)
    own = torch.arange(90, device=q.device) // 8
    scores = scores.masked_fill(torch.arange(11, device=q.device) >= own[:, None, None], -torch.inf)
    first = torch.arange(2, device=q.device)[:, None, None, None] * 12
    assert torch.equal((chosen >= 0).sum(-1), own.clamp(max=3)[None, :, None].expand(2, 90, 4))
    got = scores.gather(-1, (chosen - first).clamp(min=0)).masked_fill(chosen < 0, -torch.inf).sort(-1).values
    torch.testing.assert_close(got, scores.topk(3, dim=-1).values.sort(-1).values, rtol=1e-2, atol=1e-2)


@pytest.mark.sample(block_size=8, top_k=3)
@rows
@proves
@pytest.mark.parametrize(("block_size", "top_k"), [(8, 1), (8, 3), (70, 2), (1, 3)])
def test_step(key: Key, block_size: int, top_k: int) -> None:
    lengths = torch.tensor([1, 64, 90])
    names = ("q", "k", "v", "means")
    tensors = dict(zip(names, filled_cache(lengths, 4, 2, key[1], block_size), strict=True))
    inputs = on_card({**tensors, "lengths": lengths}, names)

    def stepping(impl: str) -> Op:
        def run(x: dict[str, Tensor]) -> tuple[Tensor]:
            cache = BlockCache(**{name: x[name] for name in (*names[1:], "lengths")})
            return (moba_attention_step(x["q"], cache, block_size=block_size, top_k=top_k, impl=impl),)

        return run  # type: ignore[return-value]

    clear = torch.stack([_clear_step(inputs, row, block_size, top_k) for row in range(len(lengths))])
    with TABLE.forced(key):
        check(stepping("triton"), stepping("chunkwise"), inputs, decided=clear)


def _clear_step(inputs: dict[str, Tensor], row: int, block_size: int, top_k: int) -> Tensor:
    """`[H]` of one sequence: as if its last token were one of a sequence."""
    length = int(inputs["lengths"][row])
    k = inputs["k"][row : row + 1, :length]
    q = inputs["q"][row : row + 1, None].expand(1, length, -1, -1)
    return clear_moba(q, k, None, block_size=block_size, top_k=top_k)[0, -1]


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
