"""What a row of the window's kernels is asked: the band, filled rows of a cache, and one token over its ring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.step import rows_a_program
from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid
from archsearch.proving.inputs import cached, qkv

from ..ops import window_attention, window_attention_step
from . import launch
from .table import TABLE

NAMES = ("q", "k", "v")
LENGTHS = (1, 15, 63, 64, 65, 100, 256, 1000)
BANDS = ((1, 0), (7, 5), (64, 0), (150, 70), (3000, 1))


def checks() -> Iterator[Check]:
    """Of every row of the table."""
    for name, run in {
        "packed": _packed,
        "more tokens than 16 bits": _long,
        "sinks in parts": _sinks_in_parts,
        "the future": _future,
    }.items():
        yield Check(table=TABLE, name=name, run=run)
    few = {"tokens": 65, "window": 7, "sinks": 5}, {"tokens": 100, "window": 64, "sinks": 0}
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(tokens=LENGTHS, window__sinks=BANDS), first=few)
    yield Check(table=TABLE, name="narrower heads", run=_narrower, cases=grid(queries=(40, 0)))
    yield Check(table=TABLE, name="filled rows", run=_filled, cases=grid(fewest=(32, 1024)))
    steps = grid(group=(2, 1, 16), rows=(700, 150, 15))
    two = {"group": 2, "rows": 150}, steps[-1]
    yield Check(table=TABLE, name="step", run=_step, cases=steps, first=two)
    wide = partial(_step, wide=True)
    yield Check(table=TABLE, name="step over a cache in float32", run=wide, cases=two, first=two)


def _op(impl: str, window: int, sinks: int, bounds: Tensor | None = None) -> Op:
    def run(x: dict[str, Tensor]) -> tuple[Tensor]:
        laid = LaidOut(x["q"], x["k"], x["v"], cu_seqlens=bounds, lengths=x.get("lengths"))
        return (window_attention(laid, window=window, sinks=sinks, impl=impl),)

    return run  # type: ignore[return-value]


def _band(
    attempt: Attempt,
    drawn: dict[str, Tensor],
    window: int,
    sinks: int,
    *,
    bounds: Tensor | None = None,
    exact: str = "reference",
) -> Verdict:
    ours, theirs = (_op(impl, window, sinks, bounds) for impl in ("triton", exact))
    return compare(ours, theirs, attempt.held(drawn, NAMES), trained=NAMES)


def _lengths(attempt: Attempt, tokens: int, window: int, sinks: int) -> Verdict:
    return _band(attempt, qkv(tokens, attempt.dim, heads=4, key_heads=2, batch=2), window, sinks)


def _narrower(attempt: Attempt, queries: int) -> Verdict:
    return _band(attempt, qkv(queries or 100, attempt.dim - 4, keys=100, batch=2), 33, 3)


def _long(attempt: Attempt) -> Verdict:
    return _band(attempt, qkv(attempt.long, attempt.dim), 500, 4, exact="chunkwise")


def _packed(attempt: Attempt) -> Verdict:
    drawn = qkv(attempt.crowd[1], attempt.dim, heads=4, key_heads=2)
    return _band(attempt, drawn, 50, 4, bounds=attempt.uneven())


@contextmanager
def _fewest_rows(count: int) -> Iterator[None]:
    """The queries of the sinks are divided among programs from so many rows on."""
    before, launch.FEWEST_ROWS = launch.FEWEST_ROWS, count
    try:
        yield
    finally:
        launch.FEWEST_ROWS = before


def _filled(attempt: Attempt, fewest: int) -> Verdict:
    queries, keys = attempt.many(170, 70), attempt.many(300, 110)
    drawn = qkv(queries, attempt.dim, heads=4, key_heads=2, keys=keys, batch=3)
    with _fewest_rows(fewest):
        return _band(
            attempt, cached(drawn, (keys, queries + 1, queries + 30)), attempt.many(40, 15), attempt.many(70, 35)
        )


def _sinks_in_parts(attempt: Attempt) -> Verdict:
    with _fewest_rows(32):
        return _band(attempt, qkv(attempt.many(300, 100), attempt.dim, heads=4, key_heads=2, batch=2), 20, 35)


def _future(attempt: Attempt) -> Verdict:
    inputs = attempt.held(qkv(attempt.many(300, 90), attempt.dim, heads=4, key_heads=2, batch=2), NAMES)
    return future_unseen(_op("triton", 70, 3), inputs, NAMES, attempt.many(177, 77))


def _step(attempt: Attempt, group: int, rows: int, *, wide: bool = False) -> Verdict:
    """In splits, but for the smallest ring; of one that is `wide`, in float32."""
    draw = torch.Generator().manual_seed(3)
    k, v = torch.randn(2, 3, rows, 2, attempt.dim, generator=draw)
    drawn = {"q": torch.randn(3, 2 * group, attempt.dim, generator=draw), "k": k, "v": v}
    low = ("q",) if wide else NAMES
    inputs = attempt.held({**drawn, "lengths": torch.tensor([rows, 5000, rows // 2])}, low)

    def stepping(impl: str) -> Op:
        return lambda x: (window_attention_step(x["q"], x["k"], x["v"], x["lengths"], impl=impl),)

    with rows_a_program(64):
        return compare(stepping("triton"), stepping("reference"), inputs)
