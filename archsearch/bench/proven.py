"""Proven: whether the rows behind an op may be run here to be measured, proven first where nothing is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from archsearch.bench.device import dtype_of
from archsearch.bench.op import BenchOp
from archsearch.errors import KernelUnavailableError
from archsearch.evidence.proofs import Machine, Proof
from archsearch.kernels import device as devices
from archsearch.kernels import forms
from archsearch.kernels.config import tables
from archsearch.kernels.machine import machine_of
from archsearch.kernels.prove import Row


class NotProvenError(KernelUnavailableError):
    """A row that failed its proof, or has none and gets none here."""


def rows_of(op: BenchOp, head_dim: int, device: torch.device, form: str, candidate: int | None = None) -> list[Row]:
    """The rows whose kernels the op runs on a device, in the dtype that is measured there: of its own table with the
    configurations of a candidate; none where no kernels run. Raises `KernelUnavailableError` where no row serves it."""
    machine = machine_of(device)
    if machine is None or form != "triton":
        return []
    return list(_rows(op, head_dim, device, machine, candidate))


def _rows(op: BenchOp, head_dim: int, device: torch.device, machine: Machine, candidate: int | None) -> Iterator[Row]:
    dtype = str(dtype_of(device)).removeprefix("torch.")
    for name, width in op.rows(head_dim).items():
        table = tables[name]
        number = candidate if name == op.table else None
        key = table.key(machine.arch, width)
        yield Row(table=table, key=key, dtype=dtype, device=str(device), machine=machine, candidate=number)


def require_proven(rows: Sequence[Row], refused: dict[Row, str]) -> str:
    """The proofs of rows, in words. A row of which nothing is known is proven now, in a process of its own, where
    ``ARCHSEARCH_PROVE`` lets "auto" do so. Raises `NotProvenError` with the reason for one that is not proven, as an
    illegal access would end all that is yet to be measured; it is among the `refused` from then on, and not tried
    again. Where the interpreter stands in for a card only what failed is refused."""
    for row in rows:
        known = row.tried()
        if known is None and not devices.takes_kernels(torch.device(row.device)):
            continue
        why = refused.get(row) or forms.why_unproven(row)
        if why:
            refused[row] = why
            raise NotProvenError(why)
    return "; ".join(_told(row, proof) for row in rows if (proof := row.tried()) is not None)


def _told(row: Row, proof: Proof) -> str:
    return f"{row.label} {proof.date}, {proof.cases} cases{'' if proof.whole else ' of a first use'}"
