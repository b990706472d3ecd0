"""``archsearch kernels list``: the rows of every table, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from archsearch.cli.kernels.compiling import BOTH, ArchOption
from archsearch.cli.output import JsonFlag, console, print_json, table

if TYPE_CHECKING:
    from archsearch.kernels import Table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("list")(list_kernels)


def list_kernels(arch: ArchOption = BOTH, json: JsonFlag = False) -> None:
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
