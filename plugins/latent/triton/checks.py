"""What a row of the kernels of attention over latents is asked: few tokens a sequence over caches of any lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from archsearch.ops.triton.step import MOST_ROWS, rows_a_program
from archsearch.proving import Attempt, Check, Op, Verdict, compare, grid, worst
from archsearch.proving.inputs import after_filled

from ..absorbed import attend_rows
from .launch import run
from .table import SHARED, TABLE

LENGTHS = (65, 1, 15, 63, 64, 100, 256, 1000)
SCALE = 0.11


def checks() -> Iterator[Check]:
    """Of every row of the table."""
    heads = (4, 1, 16, 17, 70, 128)
    first = {"length": 65, "heads": 4}, {"length": 15, "heads": 17}
    yield Check(table=TABLE, name="step", run=_step, cases=grid(length=LENGTHS, heads=heads), first=first)
    yield Check(table=TABLE, name="shared key", run=_shared, cases=grid(shared=(0, 7, 16, SHARED)))
    for name, run_check in {
        "more rows than 16 bits": _long,
        "uneven sequences": _uneven,
        "narrower latents": _narrower,
        "in splits": _split,
        "several tokens": _several,
        "gradients": _gradients,
        "rows in float32": _wide_rows,
    }.items():
        yield Check(table=TABLE, name=name, run=run_check)


def _steps(
    attempt: Attempt,
    held: int,
    lengths: Sequence[int],
    *,
    heads: int = 4,
    shared: int = 16,
    narrower: int = 0,
    tokens: int = 1,
    trained: Sequence[str] = (),
) -> Verdict:
    """The last ``tokens`` of `lengths`; rows that hold no token hold large numbers, which a gradient would meet too."""
    rank, draw = attempt.dim - narrower, torch.Generator().manual_seed(held + heads + shared)
    drawn = {
        "q": torch.randn(len(lengths), tokens, heads, rank + shared, generator=draw),
        "rows": after_filled(torch.randn(len(lengths), held, rank + shared, generator=draw), lengths, 1e4),
        "positions": torch.tensor(lengths)[:, None] - tokens + torch.arange(tokens),
    }
    return _judged(attempt.held(drawn, ("q", "rows")), rank, trained)


def _judged(inputs: dict[str, Tensor], rank: int, trained: Sequence[str] = ()) -> Verdict:
    """The kernels beside explicit products, of ``q``, ``rows`` and ``positions``."""

    def kernels(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (run(x["q"], x["rows"], x["positions"], rank=rank, scale=SCALE),)

    def explicit(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (attend_rows(x["q"], x["rows"], x["positions"], rank=rank, scale=SCALE, explicit=True),)

    ours: Op = kernels  # type: ignore[assignment]
    theirs: Op = explicit  # type: ignore[assignment]
    return compare(ours, theirs, inputs, trained=trained)


def _step(attempt: Attempt, length: int, heads: int) -> Verdict:
    return _steps(attempt, length, (length, max(1, length // 2), 1), heads=heads)


def _shared(attempt: Attempt, shared: int) -> Verdict:
    return _steps(attempt, 80, (80, 33), shared=shared)


def _wide_rows(attempt: Attempt) -> Verdict:
    """As of a model whose parameters are float32, beside queries in the dtype of autocast."""
    found, draw = [], torch.Generator().manual_seed(80)
    drawn = {
        "q": torch.randn(2, 1, 4, attempt.dim + 16, generator=draw),
        "rows": after_filled(torch.randn(2, 80, attempt.dim + 16, generator=draw), (80, 33), 1e4),
        "positions": torch.tensor([[79], [32]]),
    }
    for most in (MOST_ROWS, 64):  # in one part, and in splits, which are other builds
        with rows_a_program(most):
            found.append(_judged(attempt.held(drawn, ("q",)), attempt.dim))
    return worst(found)


def _long(attempt: Attempt) -> Verdict:
    return _steps(attempt, attempt.long, (attempt.long, attempt.long // 2, 1))


def _uneven(attempt: Attempt) -> Verdict:
    held = attempt.many(900, 100)
    lengths = torch.randint(1, held, (attempt.crowd[0],), generator=torch.Generator().manual_seed(1)).tolist()
    return _steps(attempt, held, lengths)


def _narrower(attempt: Attempt) -> Verdict:
    held = attempt.many(300, 100)
    return _steps(attempt, held, (held, 77), narrower=3)


def _split(attempt: Attempt) -> Verdict:
    with rows_a_program(64):
        return _steps(attempt, 200, (200, 65, 1))


def _several(attempt: Attempt) -> Verdict:
    held = attempt.many(300, 100)
    return _steps(attempt, held, (held, 70, 5), tokens=5)


def _gradients(attempt: Attempt) -> Verdict:
    return _steps(attempt, 70, (70, 33), tokens=2, trained=("q", "rows"))
