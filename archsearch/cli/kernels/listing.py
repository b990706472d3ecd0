"""``archsearch kernels list``: the rows of every table, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from archsearch.cli.kernels.compiling import BOTH, ArchOption
from archsearch.cli.output import JsonFlag, console, print_json, table

if TYPE_CHECKING:
    from archsearch.evidence.proofs import Machine, Proof
    from archsearch.kernels import Key, Table

OWN = "the table's own"
_KNOWN = ("dtype", "status", "card", "driver", "torch", "triton")
_COLUMNS = ["op", "arch", ">head dim", ">chunk", "configuration", *_KNOWN]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("list")(list_kernels)


def list_kernels(arch: ArchOption = BOTH, json: JsonFlag = False) -> None:
    """Lists the rows of every table, and what is known of each: where it passed or failed, with which versions.

    A proof of a candidate is told as the candidate's. What was proven with another source, Triton, torch or driver than
    are here is not verified any more; drivers are compared where such a card is here.
    """
    from archsearch.kernels.config import check_arch
    from archsearch.kernels.machine import machines_here
    from archsearch.op_forms import registered_tables
    from archsearch.registry import load_registry

    here, tables = machines_here(), registered_tables(load_registry()).values()
    for name in arch:
        check_arch(name, tables)
    rows = [row for held in tables for row in _rows(held, arch, here)]
    if json:
        print_json({"kernels": rows})
    else:
        console().print(table(_COLUMNS, [["" if cell is None else cell for cell in row.values()] for row in rows]))


def _rows(held: Table, archs: list[str], here: Sequence[Machine]) -> Iterator[dict[str, str | int | None]]:
    """A line a proof that there is, whatever it is of; one for a row of whose own configurations nothing is known."""
    from archsearch.evidence.kept import kept
    from archsearch.evidence.proofs import Proofs

    known = [*Proofs.listed(held.package), *(proof for proof in kept() if proof.package == held.package)]
    for key in held.rows:
        if key[0] not in archs:
            continue
        head: dict[str, str | int | None] = {"op": held.op, "arch": key[0], "head_dim": key[1], "chunk": key[2]}
        found = [proof for proof in known if (proof.op, proof.key) == (held.op, key)]
        if not any(proof.config == "" for proof in found):
            yield {**head, "configuration": OWN, **dict.fromkeys(_KNOWN), "status": "not proven"}
        for proof in sorted(found, key=lambda proof: proof.config != ""):
            yield {
                **head,
                "configuration": configuration_named(held, key, proof.config),
                "dtype": proof.dtype,
                "status": _status(held.package, proof, here),
                "card": proof.card,
                "driver": proof.driver,
                "torch": proof.torch,
                "triton": proof.triton,
            }


def configuration_named(held: Table, key: Key, config: str) -> str:
    """The configurations of a row that have a digest, for people."""
    if not config:
        return OWN
    numbers = [number for number in held.numbers(key) if held.digest(key, number) == config]
    return f"candidate {numbers[0]}" if numbers else "one that is no candidate any more"


def _status(package: str, proof: Proof, here: Sequence[Machine]) -> str:
    from archsearch.evidence.standing import stale

    changed = stale(package, proof) or _moved(proof, here)
    if changed:
        return f"not proven: {changed}"
    if proof.timeouts:
        return f"not proven: out of time: {proof.fault}"
    return "verified" if proof.passed else f"failed: {proof.fault}"


def _moved(proof: Proof, here: Sequence[Machine]) -> str:
    """What has changed of the machine that a kept proof was made on, where such a card is here."""
    alike = [machine for machine in here if machine.card == proof.card]
    if not proof.package or not alike or proof.machine in alike:
        return ""
    now, then = asdict(alike[0]), asdict(proof.machine)
    return ", ".join(f"{name} was {then[name]}" for name in now if now[name] != then[name])
