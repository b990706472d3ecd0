"""``archsearch kernels compile``: the Triton kernels, compiled ahead of time without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, table

if TYPE_CHECKING:
    from archsearch.evidence.compiled import Compiled, Report

ArchOption = Annotated[list[str], typer.Option("--arch", metavar="ARCH", help="Architecture; may be repeated.")]
BOTH = ["sm_90", "sm_80"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("compile")(compile_kernels)


def compile_kernels(
    arch: ArchOption = BOTH,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only kernels whose label, architecture included, contains this.")
    ] = "",
    accepted: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with this accepted report; exit with 1 on a fault.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report, with --only these lines of it.")
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
    from archsearch.errors import ArchsearchError
    from archsearch.evidence.compiled import Report, differences, drift
    from archsearch.evidence.folder import cache_folder
    from archsearch.registry import load_registry

    registry = load_registry()
    held = Report.read(accepted) if accepted is not None else None
    reasons = held.reasons if held is not None else _reasons(write)
    if check:
        report = Report(triton="", ptxas="", reasons={}) if held is None else held
        found = digests(registry, arch)
    else:
        with _progress() as done:
            report = compile_all(registry, arch, cache_folder() / "kernels", only=only, jobs=jobs, done=done)
        if only and not report.records:
            raise ArchsearchError(f"--only {only}: no kernel's label contains this; `kernels compile` lists them all")
        found = {compiled.label: compiled.digest for compiled in report.records}
    faults = report.faults(reasons)
    if held is not None:
        faults += drift(held, report) + (differences(held, found, arch) if not only else [])
    if write is not None and not check:
        _write(write, report, reasons, whole=not only)
    _show(report, faults, json=json)
    if faults:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, Compiled], None]]:
    """A line on a terminal that says how far compilation is; nothing in a pipe."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    out = quiet_console(stderr=True)
    columns = MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda count, total, last: bar.update(task, completed=count, total=total, description=last.label)


def _write(path: Path, report: Report, reasons: Mapping[str, str], *, whole: bool) -> None:
    """The reasons in it stay, and where not all kernels were compiled the lines of the others."""
    from archsearch.errors import SpecError
    from archsearch.evidence.compiled import Report

    if whole or not path.is_file():
        report.model_copy(update={"reasons": reasons}).write(path)
        return
    held = Report.read(path)
    if (held.triton, held.ptxas) != (report.triton, report.ptxas):
        raise SpecError(
            f"{path}: is of Triton {held.triton} and ptxas {held.ptxas}, not of these: write it without --only"
        )
    Report.add(path, report.records)


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
    return [
        compiled.kernel,
        compiled.arch,
        " ".join(f"{name}={size}" for name, size in compiled.tiles.items()),
        str(compiled.num_warps),
        str(compiled.num_stages),
        str(compiled.registers),
        str(compiled.spill_bytes),
        f"{compiled.shared_bytes / 1024:.0f}",
        _products(compiled),
    ]


def _products(compiled: Compiled) -> str:
    if not compiled.products:
        return "none"
    matrix = compiled.products - compiled.scalar - compiled.exact
    return f"{matrix} of {compiled.products} matrix" + (f", {compiled.exact} in float32" if compiled.exact else "")
