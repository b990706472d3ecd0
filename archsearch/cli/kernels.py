"""``archsearch kernels``: the Triton kernels, compiled ahead of time without a GPU, and their proofs on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli import kernels_model
from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, table

if TYPE_CHECKING:
    from archsearch.evidence.compiled import Compiled, Report
    from archsearch.kernels import Table

ArchOption = Annotated[list[str], typer.Option("--arch", metavar="ARCH", help="Architecture; may be repeated.")]
_BOTH = ["sm_90", "sm_80"]

app = typer.Typer(help="Triton kernels: compile them ahead of time, model them, list what was verified.")


def register(parent: typer.Typer) -> None:
    """Adds the group."""
    kernels_model.register(app)
    parent.add_typer(app, name="kernels")


@app.command("compile")
def compile_kernels(
    arch: ArchOption = _BOTH,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only kernels whose label, architecture included, contains this.")
    ] = "",
    accepted: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with this accepted report; exit with 1 on a fault.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report; keep the reasons in it.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compile nothing: only say whether the accepted report is of this source.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that compile.")] = 2,
    json: JsonFlag = False,
) -> None:
    """Compiles every kernel in every configuration of its table, and reports what each takes of a card.

    Registers a thread, bytes that spill, shared memory, and whether the matrix products became matrix instructions.
    What was compiled before is taken from the cache, unless its source, configuration or compiler changed. Exits
    with 1 when a kernel has a fault that the accepted report gives no reason for, or differs from it.
    """
    from archsearch.bench.builds import compile_all, digests
    from archsearch.evidence.compiled import Report, differences, drift
    from archsearch.kernels.compiler import cache_folder
    from archsearch.registry import load_registry

    registry = load_registry()
    held = Report.read(accepted) if accepted is not None else None
    reasons = held.reasons if held is not None else _reasons(write)
    if check:
        report = Report(triton="", ptxas="", reasons={}) if held is None else held
        found = digests(registry, arch)
    else:
        with _progress() as done:
            report = compile_all(registry, arch, cache_folder(), only=only, jobs=jobs, done=done)
        found = {compiled.label: compiled.digest for compiled in report.records}
    faults = report.faults(reasons)
    if held is not None:
        faults += drift(held, report) + (differences(held, found, arch) if not only else [])
    if write is not None and not check:
        report.model_copy(update={"reasons": reasons}).write(write)
    _show(report, faults, json=json)
    if faults:
        raise typer.Exit(1)


@app.command("list")
def list_kernels(arch: ArchOption = _BOTH, json: JsonFlag = False) -> None:
    """Lists the rows of every table, and whether each was verified on a card with this source and this Triton."""
    from archsearch.bench.builds import all_builds
    from archsearch.kernels.config import tables
    from archsearch.registry import load_registry

    registry = load_registry()
    for name in arch:
        all_builds(registry, name)  # imports the tables
    rows = [row for _, held in sorted(tables.items()) for row in _rows(held, arch)]
    if json:
        print_json({"kernels": rows})
    else:
        columns = ["op", "arch", ">head dim", ">chunk", "status", "card", "triton"]
        console().print(table(columns, [["" if cell is None else cell for cell in row.values()] for row in rows]))


def _rows(held: Table, archs: list[str]) -> Iterator[dict[str, str | int | None]]:
    from archsearch.evidence.proofs import Proofs

    stale = {proof.key for proof in Proofs.listed(held.package) if proof.op == held.op}
    for key in held.rows:
        if key[0] not in archs:
            continue
        proof = held.proof(key)
        status = "verified" if proof else "verified with another source or Triton" if key in stale else "not verified"
        yield {
            "op": held.op,
            "arch": key[0],
            "head_dim": key[1],
            "chunk": key[2],
            "status": status,
            "card": proof.card if proof else None,
            "triton": proof.triton if proof else None,
        }


@contextmanager
def _progress() -> Iterator[Callable[[int, int, Compiled], None]]:
    """A line on a terminal that says how far compilation is; nothing in a pipe."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    out = quiet_console(stderr=True)
    columns = MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda count, total, last: bar.update(task, completed=count, total=total, description=last.label)


def _reasons(path: Path | None) -> dict[str, str]:
    from archsearch.evidence.compiled import Report

    return dict(Report.read(path).reasons) if path is not None and path.is_file() else {}


def _show(report: Report, faults: list[str], *, json: bool) -> None:
    if json:
        print_json({**report.to_dict(), "faults": faults})
        return
    out = console()
    if report.records:
        columns = ["kernel", "arch", "tiles", ">warps", ">stages", ">registers", ">spill B", ">shared KiB", "products"]
        out.print(table(columns, [_row(compiled) for compiled in report.records]))
        out.print(f"{len(report.records)} kernels; Triton {report.triton}, ptxas {report.ptxas}")
    for fault in faults:
        out.print(fault)
    out.print(f"{len(faults)} faults" if faults else "no faults")


def _row(compiled: Compiled) -> list[str]:
    matrix = f"{compiled.products - compiled.scalar} of {compiled.products} matrix" if compiled.products else "none"
    return [
        compiled.kernel,
        compiled.arch,
        " ".join(f"{name}={size}" for name, size in compiled.tiles.items()),
        str(compiled.num_warps),
        str(compiled.num_stages),
        str(compiled.registers),
        str(compiled.spill_bytes),
        f"{compiled.shared_bytes / 1024:.0f}",
        matrix,
    ]
