"""``archsearch kernels list``: the rows of every table, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from archsearch.cli.kernels.compiling import BOTH, ArchOption
from archsearch.cli.output import JsonFlag, console, print_json, table

if TYPE_CHECKING:
    from archsearch.evidence.proofs import Proof
    from archsearch.kernels import Table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("list")(list_kernels)


def list_kernels(arch: ArchOption = BOTH, json: JsonFlag = False) -> None:
    """Lists the rows of every table, and what is known of each: where it passed or failed, with which Triton."""
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
        columns = ["op", "arch", ">head dim", ">chunk", "dtype", "status", "card", "triton"]
        console().print(table(columns, [["" if cell is None else cell for cell in row.values()] for row in rows]))


def _rows(held: Table, archs: list[str]) -> Iterator[dict[str, str | int | None]]:
    """A line a proof that there is, whatever its source and its Triton; one for a row of which nothing is known."""
    from archsearch.evidence.kept import kept
    from archsearch.evidence.proofs import Proofs

    known = [*Proofs.listed(held.package), *(proof for proof in kept() if proof.package == held.package)]
    for key in held.rows:
        if key[0] not in archs:
            continue
        head: dict[str, str | int | None] = {"op": held.op, "arch": key[0], "head_dim": key[1], "chunk": key[2]}
        found = [proof for proof in known if (proof.op, proof.key) == (held.op, key)]
        for proof in found:
            told = {"dtype": proof.dtype, "status": _status(held.package, proof), "card": proof.card}
            yield {**head, **told, "triton": proof.triton}
        if not found:
            yield {**head, "dtype": None, "status": "not proven", "card": None, "triton": None}


def _status(package: str, proof: Proof) -> str:
    from archsearch.evidence.proofs import proven_source, triton_version

    current = proof.source == proven_source(package) and proof.triton == triton_version()
    if proof.timeouts:
        return f"not proven: out of time: {proof.fault}"
    status = "verified" if proof.passed else f"failed: {proof.fault}"
    return status if current else "verified with another source or Triton" if proof.passed else "not proven"
