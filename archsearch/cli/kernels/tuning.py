"""``archsearch kernels tune``: of a row's candidate configurations the fastest on the card that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import JsonFlag, console, print_json, table

if TYPE_CHECKING:
    from archsearch.evidence.tuned import Tuned


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("tune")(tune_kernels)


def tune_kernels(
    mixer: Annotated[str, typer.Option(metavar="NAME", help="Only the rows of this mixer's kernels.")] = "",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only rows whose label contains this.")] = "",
    json: JsonFlag = False,
) -> None:
    """Proves the candidates of every row, times them at three sizes, and keeps the fastest for "auto".

    Ops that train are timed with their backward pass too. A candidate that is not right is not timed, and one that
    gains less than 3% is not taken; nothing depends on a length, nor on the order of candidates, which are timed in
    turn. Rows without candidates stay as they are. kernels candidates compares the order with that of the bounds.
    """
    from archsearch.bench.clock import clock_for
    from archsearch.bench.device import dtype_of
    from archsearch.bench.kernels import ops_of
    from archsearch.bench.tune import calls_of, tune_row
    from archsearch.errors import ArchsearchError
    from archsearch.evidence.tuned import keep_tuned
    from archsearch.kernels.prove import Prover
    from archsearch.proving.rows import all_checks, card_here, rows_here
    from archsearch.registry import load_registry

    registry, device = load_registry(), card_here()
    tables = [found[0].table for found in all_checks(registry, mixer).values()]
    clock, ops, dtype = clock_for(device), ops_of(registry), dtype_of(device)
    named = str(dtype).removeprefix("torch.")
    rows = [row for row in rows_here(tables, device) if row.dtype == named and only in row.label]
    rows = [row for row in rows if row.table.candidates.get(row.key)]
    if only and not rows:
        raise ArchsearchError(f"--only {only}: no row that runs here and has candidates has a label with this")
    found = []
    for row in rows:
        calls = calls_of(ops, row.table, row.key, device, dtype)
        if calls:
            found.append(tune_row(row, calls, Prover(), stopwatch=clock))
            keep_tuned(found[-1])
    if json:
        print_json({"rows": [row.model_dump(mode="json") for row in found]})
        return
    columns = ["row", "candidates", ">table's own, ms", ">fastest, ms", "runs with"]
    console().print(table(columns, [_cells(row) for row in found]) if found else "no row here has candidates")


def _cells(row: Tuned) -> list[str]:
    from archsearch.evidence.records import row_text

    own, best = (" ".join(f"{1e3 * second:.3g}" for second in row.seconds[config]) for config in ("", row.config))
    return [f"{row.op} {row_text(row.key)}", str(len(row.seconds) - 1), own, best, row.config or "the table's own"]
