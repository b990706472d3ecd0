"""``archsearch kernels candidates``: the configurations of each row in the order of their bounds, without a card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.kernels.compiling import ArchOption
from archsearch.cli.kernels.modelling import NO_PATHS, ONE
from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, table

if TYPE_CHECKING:
    from archsearch.bench.bounds.order import Agreement
    from archsearch.evidence.modelled import Modelled
    from archsearch.evidence.tuned import Tuned
    from archsearch.kernels.machine_code.cards import Card

MARKED = 0.9
"""Of the bound of a table's own configurations at a size: a candidate below it is worth a card's time."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("candidates")(model_candidates)


def model_candidates(
    arch: ArchOption = ONE,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Only rows whose label contains this.")] = "",
    sizes: Annotated[int, typer.Option(min=1, max=3, help="Sizes of a row, of the three that tuning measures.")] = 3,
    bounds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Model nothing, but read what --write has written.")
    ] = None,
    tuned: Annotated[
        list[Path], typer.Option("--tuned", metavar="FILE", help="Times of kernels tune, not those in the cache.")
    ] = NO_PATHS,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put the bounds into this file, in place of those of the rows.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Orders the candidates of every row by the bounds of the kernels that a call launches, without a card.

    Each candidate, and the table's own configurations, with the sum of its launches' bounds (geometric mean over
    sizes), the programs that an SM holds and their shared memory. Where kernels tune has measured rows, on a card, the
    rank correlation (Kendall's tau-b) of both orders is told, for each row and over all.
    """
    from archsearch.bench.bounds.order import agreements
    from archsearch.errors import ArchsearchError
    from archsearch.evidence.modelled import ModelledRows
    from archsearch.kernels.machine_code.cards import card_of

    cards = [card_of(name) for name in arch]
    if bounds is not None:
        held = ModelledRows.read(bounds).ordered()
        found = [one for one in held if one.arch in arch and only in one.row]
    else:
        found = list(_written(_modelled(cards, only, sizes), write))
    if only and not found:
        raise ArchsearchError(f"--only {only}: no row that is measured and has candidates has a label with this")
    agreed = agreements(found, _measured(tuned))
    if json:
        print_json({"rows": [_data(ones) for ones in _rows(found)], "order": [_of(one) for one in agreed]})
    else:
        _show(found, agreed)


def _written(rows: Iterable[list[Modelled]], path: Path | None) -> Iterator[Modelled]:
    """Each row is in the file before the next is modelled, which may take minutes."""
    from archsearch.evidence.modelled import ModelledRows

    for row in rows:
        if path is not None:
            ModelledRows.add(path, row)
        yield from row


def _modelled(cards: Sequence[Card], only: str, sizes: int) -> Iterator[list[Modelled]]:
    from archsearch.bench.bounds.candidates import model_row
    from archsearch.bench.builds import digests
    from archsearch.bench.kernels import ops_of
    from archsearch.evidence.bounds import digest_of_kernels
    from archsearch.evidence.folder import cache_folder
    from archsearch.evidence.records import row_text
    from archsearch.kernels.config import tables
    from archsearch.registry import load_registry

    registry, out = load_registry(), quiet_console(stderr=True)
    ops = ops_of(registry)
    for card in cards:
        built = digests(registry, [card.arch])  # imports the tables
        for _, held in sorted(tables.items()):
            for key in held.candidates:
                label = f"{held.op} {row_text(key)}"
                if key[0] == card.arch and only in label:
                    if out.is_terminal:
                        out.print(label, end="\r", markup=False)
                    kernels = digest_of_kernels(built, held.op, card.arch)
                    yield model_row(ops, held, key, card, cache_folder() / "kernels", kernels=kernels, most=sizes)


def _measured(paths: Sequence[Path]) -> list[Tuned]:
    """What was tuned, of the files that are named or of the cache."""
    from archsearch.evidence.folder import cache_folder
    from archsearch.evidence.tuned import FILE, TunedRows

    kept = cache_folder() / FILE
    chosen = [*paths] or ([kept] if kept.is_file() else [])
    return [record for path in chosen for record in TunedRows.read(path).records]


def _rows(found: Sequence[Modelled]) -> list[list[Modelled]]:
    from archsearch.evidence.modelled import by_row

    return list(by_row(found).values())


def _data(ones: Sequence[Modelled]) -> dict[str, Any]:
    from archsearch.evidence.modelled import gains

    shares = gains(ones)
    return {
        "row": ones[0].row,
        "order": [{**one.model_dump(mode="json"), "of_own": round(shares.get(one.candidate, 1.0), 4)} for one in ones],
    }


def _of(one: Agreement) -> dict[str, Any]:
    return {"row": one.row, "card": one.card, "configurations": one.count, "kendall_tau_b": one.tau}


def _show(found: Sequence[Modelled], agreed: Sequence[Agreement]) -> None:
    from archsearch.evidence.modelled import OWN, gains, shorter

    out, lines, marked = console(), list[list[str]](), list[str]()
    for ones in _rows(found):
        shares = gains(ones)
        for one, size, part in shorter(ones, MARKED):
            marked.append(f"{one.row} candidate {one.candidate} ({one.changes}): {part:.0%} of the bound at {size}")
        for rank, one in enumerate(ones, 1):
            name = "the table's own" if one.candidate == OWN else f"candidate {one.candidate} ({one.changes})"
            share = shares.get(one.candidate, 1.0)
            taken = "; ".join(each.text for each in one.taken) + (" (uncertain)" if one.uncertain else "")
            lines.append([one.row, str(rank), name, f"{one.mean * 1e3:.4g}", f"{share:.0%}", taken])
    if not lines:
        out.print("no row here has candidates and an op that measures it")
        return
    out.print(table(["row", ">order", "configurations", ">bound ms", ">of own", "what differs"], lines))
    for line in marked:
        out.print(line)
    for order in agreed:
        tau = "all equal" if order.tau is None else f"{order.tau:.2f}"
        out.print(f"{order.row}, {order.card}: Kendall's tau-b of {order.count} configurations with measurement: {tau}")
    if not agreed:
        out.print("None of these rows was tuned on a card with these kernels: the order is unproven (--tuned FILE).")
