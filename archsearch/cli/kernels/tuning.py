"""``archsearch kernels tune``: of a row's candidate configurations the fastest on the card that is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.kernels.proving import progress
from archsearch.cli.output import JsonFlag, console, print_json, table, tell

if TYPE_CHECKING:
    from archsearch.evidence.tuned import Tuned
    from archsearch.kernels.prove import Row
    from archsearch.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("tune")(tune_kernels)


def tune_kernels(
    mixer: Annotated[str, typer.Option(metavar="NAME", help="Only the rows of this mixer's kernels.")] = "",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only rows whose label contains this.")] = "",
    json: JsonFlag = False,
) -> None:
    """Proves every row that has candidates, and these, times them at three sizes, and keeps the fastest for "auto".

    Ops that train are timed with their backward pass too. What is not right in bfloat16 and in float32 is not timed,
    and why is told; a candidate that gains less than 3% is not taken. On a card times are of bfloat16: what a row has
    for float32 alone stays as it is. Nothing depends on a length, nor on the order of candidates, which are timed in
    turn. Rows without candidates stay as they are. kernels candidates compares the order with that of the bounds.
    """
    from archsearch.bench.device import dtype_of
    from archsearch.errors import ArchsearchError
    from archsearch.evidence.tuned import keep_tuned
    from archsearch.proving.rows import all_checks, card_here, rows_here
    from archsearch.registry import load_registry

    registry, device = load_registry(), card_here()
    tables = [found[0].table for found in all_checks(registry, mixer).values()]
    dtype = str(dtype_of(device)).removeprefix("torch.")
    rows = [row for row in rows_here(tables, device) if row.dtype == dtype and only in row.label]
    rows = [row for row in rows if row.table.candidates.get(row.key)]
    if only and not rows:
        raise ArchsearchError(f"--only {only}: no row that runs here and has candidates has a label with this")
    keep_tuned()  # before the work, that what comes of it can be kept
    found = list(_tuned(rows, registry))
    if json:
        print_json({"rows": [row.model_dump(mode="json") for row in found]})
        return
    columns = ["row", "timed", ">table's own, ms", ">fastest, ms", "runs with"]
    nothing = "no row here has candidates, and an op that measures it, and a configuration that is right"
    console().print(table(columns, [_cells(row) for row in found]) if found else nothing)


def _tuned(rows: Sequence[Row], registry: Registry) -> Iterator[Tuned]:
    """Each row that was measured, which is kept before the next is."""
    from archsearch.bench.builds import digests
    from archsearch.bench.clock import clock_for
    from archsearch.bench.device import dtype_of
    from archsearch.bench.kernels import ops_of
    from archsearch.bench.tune import calls_of, rows_beside, tune_row
    from archsearch.evidence.bounds import digest_of_kernels
    from archsearch.evidence.tuned import keep_tuned
    from archsearch.kernels.prove import Prover
    from archsearch.proving.rows import card_here, dtypes_of

    device = card_here()
    clock, ops, dtypes = clock_for(device), ops_of(registry), dtypes_of(device)
    built = digests(registry, sorted({row.key[0] for row in rows}))
    with progress(len(rows)) as done:
        for row in rows:
            done(row)
            calls = calls_of(ops, row.table, row.key, device, dtype_of(device))
            if not calls:
                continue
            beside = rows_beside(ops, row)
            found = tune_row(row, calls, Prover(), stopwatch=clock, dtypes=dtypes, beside=beside, tell=tell)
            if found is not None:
                kernels = digest_of_kernels(built, row.table.op, row.key[0])
                keep_tuned(found := found.model_copy(update={"kernels": kernels}))
                yield found


def _cells(row: Tuned) -> list[str]:
    from archsearch.cli.kernels.listing import configuration_named
    from archsearch.evidence.records import row_text
    from archsearch.kernels.config import tables

    timed = [row.seconds.get(config, ()) for config in ("", row.config)]
    own, best = (" ".join(f"{1e3 * second:.3g}" for second in seconds) or "not right" for seconds in timed)
    runs = configuration_named(tables[row.op], row.key, row.config)
    return [f"{row.op} {row_text(row.key)}", str(len(row.seconds)), own, best, runs]
