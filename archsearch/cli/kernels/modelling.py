"""``archsearch kernels model``: what the compiler already tells of the kernels that an op launches, without a card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.kernels.compiling import ArchOption
from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, table, tell

if TYPE_CHECKING:
    from archsearch.bench.bounds import OpBound
    from archsearch.bench.results import Results
    from archsearch.bench.results.work import Shape
    from archsearch.kernels.machine_code.cards import Card
    from archsearch.kernels.machine_code.code import Code

ONE, _NONE = ["sm_90"], list[str]()
NO_PATHS: list[Path] = []
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)(?:/(\d+))?x(\d+)")


def register(parent: typer.Typer) -> None:
    """Adds the command."""
    parent.command("model")(model_kernels)


def model_kernels(
    arch: ArchOption = ONE,
    op: Annotated[str, typer.Option(metavar="TEXT", help="Only ops whose name contains this.")] = "",
    shape: Annotated[
        list[str], typer.Option("--shape", metavar="BxTxH/KVxD", help="Instead of the grid's; may be repeated.")
    ] = _NONE,
    full: Annotated[bool, typer.Option("--full", help="Every shape of the grid, not one an op.")] = False,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="No ops, but the loops of compiled kernels whose label contains this.")
    ] = "",
    results: Annotated[
        list[Path], typer.Option("--results", metavar="PATH", help="Measured rows to compare the order with.")
    ] = NO_PATHS,
    short: Annotated[bool, typer.Option("--short", help="Only what cannot reach a third of its bound.")] = False,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Put the figures into this file, in place of older ones."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Model nothing: say what in this file is of other kernels.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Says what the kernels of each op can reach at best, from their machine code and the launches of a call.

    Each launch is listed as a card would get it, and its programs' loops are followed: matrix instructions,
    instructions, bytes of memory and of L2, programs that an SM holds, and the times that these take at least. Beside
    them stands the bound of the op, which no implementation can come below. Figures are of a card's data, not measured.
    With --check FILE the figures that were written are compared with today's kernels; exits with 1 where they differ.
    """
    from archsearch.errors import ArchsearchError, SpecError
    from archsearch.kernels.machine_code.cards import card_of

    cards = [card_of(name) for name in arch]
    if check is not None:
        _check(check, json=json)
        return
    if only:
        codes = [code for card in cards for code in _codes(card.arch, only)]
        if not codes:
            raise ArchsearchError(f"--only {only}: no kernel's label contains this; `kernels compile` lists them all")
        _show_code(codes, json=json)
        return
    measured = [] if json else _measured(results)
    found = [(card, bound) for card in cards for bound in _bounds(card, op, shape, full=full)]
    if not found:
        raise SpecError(f'--op "{op}": has no kernels, or no shape unless in --full: add it, or name a --shape')
    shown = [(card, bound) for card, bound in found if bound.short or not short]
    if write is not None:
        _write(write, found, shown)
    if json:
        print_json({"ops": [_data(card, bound) for card, bound in shown]})
    else:
        _show_bounds(shown)
        _compare([bound for _, bound in found], measured)


def _bounds(card: Card, op: str, shapes: Sequence[str], *, full: bool) -> Iterator[OpBound]:
    from archsearch.bench.bounds import bound_op
    from archsearch.bench.kernels import ops_of
    from archsearch.bench.op import FULL, QUICK
    from archsearch.evidence.folder import cache_folder
    from archsearch.registry import load_registry

    out = quiet_console(stderr=True)
    for each in ops_of(load_registry(), op):
        if each.forms[0] != "triton":
            continue
        grid = [_shape(text) for text in shapes] or each.grids[FULL if full else QUICK]
        for shape in grid:
            for phase in each.phases:
                if out.is_terminal:
                    out.print(f"{each.name} {phase}", end="\r", markup=False)
                yield bound_op(each, shape, phase, card, cache_folder() / "kernels")


def _shape(text: str) -> Shape:
    from archsearch.bench.results.work import Shape
    from archsearch.errors import SpecError

    found = _SHAPE.fullmatch(text)
    if found is None:
        raise SpecError(
            f"--shape {text}: write batch x tokens x heads x head dim, as 1x8192x64x128 or 1x8192x64/16x128"
        )
    batch, tokens, heads, _, dim = (int(part or 0) for part in found.groups())
    return Shape(batch=batch, tokens=tokens, heads=heads, kv_heads=int(found[4] or heads), head_dim=dim)


def _codes(arch: str, only: str) -> Iterator[Code]:
    from archsearch.bench.builds import all_builds
    from archsearch.evidence.folder import cache_folder
    from archsearch.kernels.machine_code.code import code_of
    from archsearch.registry import load_registry

    for build in all_builds(load_registry(), arch):
        if only in f"{build.label} {arch}":
            yield code_of(build, arch, cache_folder() / "kernels")


def _data(card: Card, bound: OpBound) -> dict[str, Any]:
    return {
        "op": bound.op,
        "phase": bound.phase,
        "shape": bound.shape_text,
        "arch": card.arch,
        "op_ms": round(bound.op_seconds * 1e3, 4),
        "kernels_ms": round(bound.seconds * 1e3, 4),
        "share": round(bound.share, 3),
        "launches": [
            {
                "kernel": launch.kernel,
                "ms": round(launch.seconds * 1e3, 4),
                "limit": launch.limit,
                "reason": launch.reason,
                "registers": launch.registers,
                "shared_bytes": launch.shared_bytes,
                "warps": launch.num_warps,
                "resident": launch.resident,
                "by": {name: round(seconds * 1e3, 4) for name, seconds in launch.seconds_by.items()},
                "uncertain": launch.uncertain,
            }
            for launch in bound.launches
        ],
    }


def _write(path: Path, found: Sequence[tuple[Card, OpBound]], shown: Sequence[tuple[Card, OpBound]]) -> None:
    """What is shown, each with the digest of the kernels of its table; other cases of the file stay."""
    from archsearch.bench.builds import digests
    from archsearch.bench.kernels import ops_of
    from archsearch.evidence.bounds import BoundRecord, BoundRecords, digest_of_kernels
    from archsearch.kernels.machine import compiler_versions
    from archsearch.registry import load_registry

    registry = load_registry()
    held = digests(registry, list(dict.fromkeys(card.arch for card, _ in found)))
    tables = {(op.name, phase): op.table or op.name for op in ops_of(registry) for phase in op.phases}
    triton, ptxas = compiler_versions()

    def record(card: Card, bound: OpBound) -> BoundRecord:
        table = tables[bound.op, bound.phase]
        kernels = digest_of_kernels(held, table, card.arch)
        return BoundRecord(**_data(card, bound), table=table, kernels=kernels, triton=triton, ptxas=ptxas)

    modelled = [(card.arch, bound.op, bound.shape_text, bound.phase) for card, bound in found]
    BoundRecords.renew(path, [record(card, bound) for card, bound in shown], modelled)


def _check(path: Path, *, json: bool) -> None:
    from archsearch.bench.builds import digests
    from archsearch.evidence.bounds import BoundRecords, stale_bounds
    from archsearch.registry import load_registry

    records = BoundRecords.read(path).records
    stale = stale_bounds(records, digests(load_registry(), sorted({record.arch for record in records})))
    if json:
        print_json({"cases": len(records), "stale": stale})
    else:
        for line in [*stale, f"{len(stale)} of {len(records)} cases are of other kernels than today's"]:
            console().print(line, markup=False)
    if stale:
        raise typer.Exit(1)


def _show_bounds(found: Sequence[tuple[Card, OpBound]]) -> None:
    out = console()
    columns = ["op", "phase", "shape", "arch", ">bound ms", ">kernels ms", ">share", "longest launches"]
    rows = [
        [
            bound.op,
            bound.phase,
            bound.shape_text,
            card.arch,
            f"{bound.op_seconds * 1e3:.3f}",
            f"{bound.seconds * 1e3:.3f}",
            f"{bound.share:.0%}",
            "; ".join(f"{one.kernel} {one.seconds * 1e3:.3f} ms, {one.limit}: {one.reason}" for one in bound.worst),
        ]
        for card, bound in found
    ]
    out.print(table(columns, rows))
    count = sum(bound.short for _, bound in found)
    out.print(f"{count} of {len(found)} cannot reach a third of their bound. Nothing here was measured on a card.")


def _measured(paths: Sequence[Path]) -> list[Results]:
    """What the files hold that are named, else those of the repository, if there are any; what cannot be read is told,
    and raises `SpecError` where nothing of what is named can be."""
    from archsearch.bench.results import gather_results
    from archsearch.cli.bench import RESULTS
    from archsearch.errors import SpecError

    found, lacking = gather_results([*paths] or ([RESULTS] if RESULTS.is_dir() else []))
    if paths and lacking and not found:
        raise SpecError("; ".join(lacking))
    for each in lacking:
        tell(f"missing: {each}")
    return found


def _compare(bounds: Sequence[OpBound], measured: Sequence[Results]) -> None:
    from archsearch.bench.bounds import rank_correlation

    found = rank_correlation(bounds, measured)
    if not found:
        console().print("Fewer than three of them were measured on one card: the order is unproven (--results FILE).")
    for card, (correlation, count) in found.items():
        console().print(f"Rank correlation with {count} times that {card} measured: {correlation:.2f}")


def _show_code(codes: Sequence[Code], *, json: bool) -> None:
    if json:
        print_json({"kernels": [code.model_dump(mode="json", exclude={"ptx", "format"}) for code in codes]})
        return
    from archsearch.kernels.machine_code.cards import card_of

    columns = [
        "kernel",
        "arch",
        ">registers",
        ">shared KiB",
        ">an SM",
        ">depth",
        ">instructions",
        ">MFLOP",
        ">loaded B",
    ]
    rows = []
    for code in codes:
        made = code.compiled
        resident, held_by = card_of(made.arch).resident(
            registers=made.registers, shared_bytes=made.shared_bytes, num_warps=made.num_warps
        )
        for body in code.bodies:
            products = " ".join(f"{count} {name}" for name, count in body.matrix.items())
            sizes = [str(made.registers), f"{made.shared_bytes / 1024:.0f}", f"{resident} ({held_by})"]
            amounts = [body.depth, body.instructions, f"{body.flops / 1e6:.2f}", body.loaded, body.stored, products]
            rows.append([made.kernel, made.arch, *sizes, *map(str, amounts)])
    console().print(table([*columns, ">stored B", "matrix instructions"], rows))
