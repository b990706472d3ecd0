"""What a row of full attention's kernels is asked: packed and continued sequences, and one token over a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.step import MOST_ROWS, rows_a_program
from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid, worst
from archsearch.proving.inputs import after_filled, cached, qkv

from ..ops import full_attention, full_attention_step
from .table import TABLE

NAMES = ("q", "k", "v")
LENGTHS = (1, 15, 63, 64, 65, 100, 256, 1000)


def checks() -> Iterator[Check]:
    """Of every row of the table."""
    heads = (4, 2), (2, 2), (6, 1)
    few = {"tokens": 65, "heads": (4, 2)}, {"tokens": 100, "heads": (6, 1)}
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(tokens=LENGTHS, heads=heads), first=few)
    yield Check(table=TABLE, name="after cached tokens", run=_after_cached, cases=grid(tokens=(15, 1, 64, 65, 300)))
    groups = (4, 2), (2, 2), (16, 1), (70, 1)
    tokens = (65, *(length for length in LENGTHS if length != 65))
    few_steps = {"length": 65, "heads": (4, 2)}, {"length": 15, "heads": (16, 1)}
    yield Check(table=TABLE, name="step", run=_step, cases=grid(length=tokens, heads=groups), first=few_steps)
    for name, run in {
        "packed": _packed,
        "more tokens than 16 bits": _long,
        "narrower heads": _narrower,
        "the future": _future,
        "step past 16 bits": _long_step,
        "steps of uneven sequences": _uneven_steps,
        "step of narrower heads": _narrower_step,
        "step over a cache in float32": _wide_cache,
        "step in splits": _split_step,
        "a sequence without rows": _empty,
    }.items():
        yield Check(table=TABLE, name=name, run=run)


def _op(impl: str, bounds: Tensor | None = None) -> Op:
    def run(x: dict[str, Tensor]) -> tuple[Tensor]:
        laid = LaidOut(x["q"], x["k"], x["v"], cu_seqlens=bounds, lengths=x.get("lengths"))
        return (full_attention(laid, impl=impl),)

    return run  # type: ignore[return-value]


def _whole(attempt: Attempt, drawn: dict[str, Tensor], bounds: Tensor | None = None) -> Verdict:
    ours, theirs = (_op(impl, bounds) for impl in ("triton", "reference"))
    return compare(ours, theirs, attempt.held(drawn, NAMES), trained=NAMES)


def _lengths(attempt: Attempt, tokens: int, heads: tuple[int, int]) -> Verdict:
    return _whole(attempt, qkv(tokens, attempt.dim, heads=heads[0], key_heads=heads[1], batch=2))


def _after_cached(attempt: Attempt, tokens: int) -> Verdict:
    keys = attempt.many(1000, 140)
    drawn = qkv(tokens, attempt.dim, heads=4, key_heads=2, keys=keys, batch=4)
    return _whole(attempt, cached(drawn, (tokens, keys, max(keys // 2, tokens), tokens + 1)))


def _packed(attempt: Attempt) -> Verdict:
    drawn = qkv(attempt.crowd[1], attempt.dim, heads=4, key_heads=2)
    return _whole(attempt, drawn, attempt.uneven())


def _long(attempt: Attempt) -> Verdict:
    """Packed, so that the explicit products of the reference fit."""
    draw = torch.Generator().manual_seed(0)
    cuts = torch.randperm(attempt.long - 1, generator=draw)[:39].sort().values + 1
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), cuts, torch.tensor([attempt.long])])
    return _whole(attempt, qkv(attempt.long, attempt.dim), bounds.to(attempt.device))


def _narrower(attempt: Attempt) -> Verdict:
    bounds = torch.tensor([0, 70, 150], device=attempt.device)
    return _whole(attempt, qkv(150, attempt.dim - 4), bounds)


def _future(attempt: Attempt) -> Verdict:
    tokens = attempt.many(300, 90)
    bounds = torch.tensor([0, tokens // 3, tokens], device=attempt.device)
    inputs = attempt.held(qkv(tokens, attempt.dim, heads=4), NAMES)
    return future_unseen(_op("triton", bounds), inputs, NAMES, attempt.many(177, 61))


def _stepping(impl: str) -> Op:
    return lambda x: (full_attention_step(x["q"], x["k"], x["v"], x["lengths"], impl=impl),)


def _held_step(
    attempt: Attempt,
    rows: int,
    lengths: Sequence[int],
    heads: tuple[int, int],
    dim: int,
    low: Sequence[str] = NAMES,
) -> dict[str, Tensor]:
    """q of one token, caches of which the rows that are not filled hold large numbers, and the lengths."""
    drawn = qkv(rows, dim, heads=heads[0], key_heads=heads[1], batch=len(lengths))
    caches = {name: after_filled(drawn[name], lengths, 1e4) for name in ("k", "v")}
    return attempt.held({"q": drawn["q"][:, 0], **caches, "lengths": torch.tensor(lengths)}, low)


def _steps(
    attempt: Attempt, rows: int, lengths: Sequence[int], heads: tuple[int, int] = (4, 2), *, narrower: int = 0
) -> Verdict:
    inputs = _held_step(attempt, rows, lengths, heads, attempt.dim - narrower)
    return compare(_stepping("triton"), _stepping("reference"), inputs)


def _step(attempt: Attempt, length: int, heads: tuple[int, int]) -> Verdict:
    return _steps(attempt, length, (length, max(1, length // 2), 1), heads)


def _long_step(attempt: Attempt) -> Verdict:
    return _steps(attempt, attempt.long, (attempt.long, attempt.long // 2, 1))


def _split_step(attempt: Attempt) -> Verdict:
    with rows_a_program(64):
        return _steps(attempt, 200, (200, 65, 1))


def _uneven_steps(attempt: Attempt) -> Verdict:
    rows = attempt.many(900, 200)
    lengths = torch.randint(1, rows, (attempt.crowd[0],), generator=torch.Generator().manual_seed(1)).tolist()
    return _steps(attempt, rows, lengths)


def _narrower_step(attempt: Attempt) -> Verdict:
    return _steps(attempt, attempt.many(300, 100), (attempt.many(300, 100), 77), narrower=4)


def _wide_cache(attempt: Attempt) -> Verdict:
    """As of a model whose parameters are float32, beside queries in the dtype of autocast: in one part, and in splits,
    which are other builds."""
    found = []
    for rows in (65, 200):
        inputs = _held_step(attempt, rows, (rows, 33, 1), (4, 2), attempt.dim, low=("q",))
        with rows_a_program(64 if rows > 65 else MOST_ROWS):
            found.append(compare(_stepping("triton"), _stepping("reference"), inputs))
    return worst(found)


def _empty(attempt: Attempt) -> Verdict:
    rows = attempt.many(300, 100)
    inputs = _held_step(attempt, rows, (rows, 5), (4, 2), attempt.dim)
    out = _stepping("triton")({**inputs, "lengths": torch.tensor([rows, 0], device=attempt.device)})[0]
    return Verdict(error=0.0, fault="a sequence without rows does not give zeros" if out[1].any() else "")
