"""Tuning: of a row's candidate configurations the fastest on this card, at a few sizes, among those that are proven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

import torch

from archsearch.bench.case import Case, Contender
from archsearch.bench.op import FULL, TINY, BenchOp, Draw, Inputs, Outputs
from archsearch.bench.proven import rows_of
from archsearch.bench.results.schema import OURS
from archsearch.bench.results.work import Shape
from archsearch.bench.timing import Stopwatch, measure
from archsearch.errors import KernelUnavailableError
from archsearch.evidence.modelled import geometric
from archsearch.evidence.proofs import proven_source
from archsearch.evidence.tuned import Tuned, named
from archsearch.kernels import Key, Table
from archsearch.kernels.config import tables
from archsearch.kernels.forms import tuned
from archsearch.kernels.machine import machine_of
from archsearch.kernels.prove import NotTriedError, Prover, Row

SIZES = 3
"""Shapes that a candidate is timed at, each forwards and, where its op trains, with the backward pass."""

LEAST_GAIN = 1.03
"""A candidate must be so many times as fast as the table's own: less is noise."""

Call: TypeAlias = Callable[[], object]
Run: TypeAlias = Callable[[Inputs], Outputs]


def sizes_of(
    ops: Sequence[BenchOp], table: Table, key: Key, grid: str, most: int = SIZES
) -> list[tuple[BenchOp, Shape, str]]:
    """The `most` sizes of the ops that measure a row, each in every phase of its op: the first size of each op before
    any second; none where no size of the grid has its head dim."""
    fitting = [
        (rank, op, shape)
        for op in ops
        if op.table == table.op
        for rank, shape in enumerate(shape for shape in op.grids[grid] if op.row_width(shape.head_dim) == key[1])
    ]
    fitting.sort(key=lambda found: found[0])
    return [(op, shape, phase) for _, op, shape in fitting[:most] for phase in op.phases]


def calls_of(ops: Sequence[BenchOp], table: Table, key: Key, device: torch.device, dtype: torch.dtype) -> list[Call]:
    """What runs the kernels of a row: `sizes_of` it, forwards and, where an op trains, with its backward pass."""
    grid = FULL if device.type == "cuda" else TINY
    return [_call(*size, Draw.on(device, dtype)) for size in sizes_of(ops, table, key, grid)]


def rows_beside(ops: Sequence[BenchOp], row: Row) -> list[Row]:
    """Rows of other tables that `calls_of` a row run too."""
    device = torch.device(row.device)
    sizes = sizes_of(ops, row.table, row.key, FULL if device.type == "cuda" else TINY)
    found = [held for op, shape, _ in sizes for held in rows_of(op, shape.head_dim, device, "triton")]
    return [held for held in dict.fromkeys(found) if held.table is not row.table]


def _call(op: BenchOp, shape: Shape, phase: str, draw: Draw) -> Call:
    ours = Contender(
        name=OURS,
        form="triton",
        run=lambda inputs: op.run(inputs, "triton"),
        reference=op.reference,
        work=op.work,
        agreeing=op.agreeing,
    )
    return Case(op=op, shape=shape, phase=phase, draw=draw).call(ours)


def tuned_run(op: BenchOp, head_dim: int, device: torch.device, form: str) -> tuple[int, Run] | None:
    """The number of the candidate that was found fastest for the op's row on this device, and the op with it; None
    where the table's own is, nothing was tuned, or no row serves it."""
    table, machine = tables.get(op.table), machine_of(device)
    if table is None or machine is None or form != "triton":
        return None
    try:
        key = table.key(machine.arch, op.row_width(head_dim))
    except KernelUnavailableError:
        return None
    number = tuned(table, key, machine)
    if number is None:
        return None

    def run(inputs: Inputs) -> Outputs:
        with table.using(key, number):
            return op.run(inputs, form)

    return number, run


def tune_row(
    row: Row,
    calls: Sequence[Call],
    prover: Prover,
    *,
    stopwatch: Stopwatch,
    seconds: float = 0.5,
    dtypes: Sequence[str] = (),
    beside: Sequence[Row] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Tuned | None:
    """Times the table's own configurations and each candidate, of those that pass their checks, and says which to run
    with; None where none passes.

    Checks are passed in the row's dtype and in each of `dtypes`, since a row runs with one candidate in all of
    them. `tell` hears why one is left out. Nothing runs here that was not proven, in a child, before: the rows `beside`
    it, which the calls run too, neither.
    """
    table, key = row.table, row.key
    if not all(_passes(other, None, prover, (), tell) for other in beside):
        return None
    passed = [number for number in (None, *table.numbers(key)) if _passes(row, number, prover, dtypes, tell)]
    if not passed:
        return None
    times: dict[str, tuple[float, ...]] = {table.digest(key, number): () for number in passed}
    for call in calls:
        timed = measure(
            {table.digest(key, number): _with(table, key, number, call) for number in passed},
            stopwatch=stopwatch,
            seconds=seconds,
        )
        times = {digest: (*times[digest], timed[digest].median) for digest in times}
    best = min(times, key=lambda digest: geometric(times[digest]))
    own = times.get("")  # a table's own that is wrong here is no choice
    if own is not None and geometric(own) / geometric(times[best]) < LEAST_GAIN:
        best = ""
    arch, head_dim, chunk = key
    return Tuned(
        package=table.package,
        op=table.op,
        arch=arch,
        head_dim=head_dim,
        chunk=chunk,
        source=proven_source(table.package),
        machine=named(row.machine),
        config=best,
        seconds=times,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def _passes(row: Row, number: int | None, prover: Prover, dtypes: Sequence[str], tell: Callable[[str], None]) -> bool:
    for dtype in dict.fromkeys((row.dtype, *dtypes)):
        other = replace(row, dtype=dtype, candidate=number)
        try:
            fault = prover.prove(other).fault
        except NotTriedError as error:
            fault = str(error)
        if fault:
            tell(f"{other.label} is left out: {fault}")
            return False
    return True


def _with(table: Table, key: Key, number: int | None, call: Call) -> Call:
    def run() -> object:
        with table.using(key, number):
            return call()

    return run
