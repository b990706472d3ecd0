"""``archsearch kernels prove``: every row that the card would use, put to the proof and kept for "auto"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, table

if TYPE_CHECKING:
    from archsearch.evidence.proofs import Proof
    from archsearch.kernels.prove import Row
    from archsearch.proving.rows import Answered


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("prove")(prove_kernels)


def prove_kernels(
    mixer: Annotated[str, typer.Option(metavar="NAME", help="Only the rows of this mixer's kernels.")] = "",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only rows whose label contains this.")] = "",
    missing: Annotated[
        bool, typer.Option("--missing", help="Only rows of which nothing is known on this machine.")
    ] = False,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="The candidates of the rows instead, which kernels tune compares.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the cases that a first use tries.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Rows at a time: most of it is compilation.")] = 2,
    minutes: Annotated[float, typer.Option(min=0.0, help="No row is begun after so many minutes; 0: all are.")] = 0.0,
    listed: Annotated[
        bool, typer.Option("--listed", help="Write what passed into the packages' own lists too: for a release.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Proves every row that the card here would use, in bfloat16 and float32, and keeps what came of it.

    Outputs, states and all gradients beside a reference in float64; ragged and packed lengths, memory full of NaN,
    tokens that may not be seen. Each row in a process of its own. "auto" takes the rows that pass. Exits with 1 when
    a row fails, or could not be tried. TRITON_INTERPRET=1 tries the rows without a card, and proves nothing of one.
    """
    import math

    from archsearch.kernels.prove import Prover
    from archsearch.proving.rows import prove_rows

    rows = _rows(mixer, only, missing=missing, quick=quick, candidates=candidates)
    prover = Prover(whole=not quick, again=not missing)
    with progress(len(rows)) as done:
        found = []
        for answered in prove_rows(rows, prover, jobs=jobs, seconds=60 * minutes or math.inf):
            done(answered.row)
            found.append(answered)
    if listed:
        _list([answered.proof for answered in found if answered.proof is not None])
    if json:
        print_json({"rows": [_told(answered) for answered in found]})
    else:
        _show(found)
    if any(answered.fault for answered in found):
        raise typer.Exit(1)


def _rows(mixer: str, only: str, *, missing: bool, quick: bool, candidates: bool) -> list[Row]:
    from archsearch.errors import ArchsearchError
    from archsearch.proving.rows import all_checks, by_worth, card_here, rows_here
    from archsearch.registry import load_registry

    checks = all_checks(load_registry(), mixer)
    tables = [found[0].table for found in checks.values()]
    rows = [row for row in rows_here(tables, card_here(), candidates=candidates) if only in row.label]
    if only and not rows:
        raise ArchsearchError(f"--only {only}: no row that runs here has a label with this; `kernels list` names them")
    return by_worth(row for row in rows if not missing or not _known(row, quick=quick))


def _known(row: Row, *, quick: bool) -> bool:
    found = row.tried()
    return found is not None and (found.whole or quick)


@contextmanager
def progress(total: int) -> Iterator[Callable[[Row], None]]:
    """A line on a terminal that says how far it is; nothing in a pipe."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    out = quiet_console(stderr=True)
    columns = MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda row: bar.update(task, advance=1, description=row.label)


def _list(proofs: Sequence[Proof]) -> None:
    from importlib.resources import files
    from pathlib import Path

    from archsearch.evidence.proofs import Proofs

    for package in sorted({proof.package for proof in proofs}):
        passed = [proof for proof in proofs if proof.package == package and proof.passed and not proof.config]
        Proofs.add(
            Path(str(files(package))) / Proofs.FILE, [proof.model_copy(update={"package": ""}) for proof in passed]
        )


def _told(answered: Answered) -> dict[str, object]:
    data: dict[str, object] = {"row": answered.row.label, "status": answered.status}
    proof = answered.proof
    return data | ({"reason": answered.reason} if proof is None else proof.model_dump(mode="json"))


def _show(found: Sequence[Answered]) -> None:
    out = console()
    if found:
        columns = ["row", "status", ">cases", ">error"]
        out.print(table(columns, [[one.row.label, one.status, *_figures(one.proof)] for one in found]))
    for one in found:
        if one.fault:
            out.print(f"{one.row.label}: {one.fault}")
    passed = sum(one.status == "passed" for one in found)
    out.print(f"{passed} of {len(found)} rows passed" if found else "nothing is missing")


def _figures(proof: Proof | None) -> list[str]:
    if proof is None:
        return ["", ""]
    return [str(proof.cases), "not finite" if proof.error is None else f"{proof.error:.2g}"]
