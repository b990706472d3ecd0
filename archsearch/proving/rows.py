"""Rows to prove: every check of the core and of the registered plugins, and the rows that a card would use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import torch

from archsearch.errors import KernelUnavailableError
from archsearch.evidence.proofs import Proof
from archsearch.kernels import Key, Table, obstacle
from archsearch.kernels.machine import machine_of
from archsearch.kernels.prove import NotTriedError, Prover, Row
from archsearch.ops.impl import KERNEL_DTYPES
from archsearch.proving.check import Check
from archsearch.proving.core import core_checks
from archsearch.registry import Registry

DTYPES = ("bfloat16", "float32")
"""What a model is trained in, and so what is proven beforehand; float16 is proven where it is met."""

ON_THE_CPU = ("float32",)
"""What the interpreter computes right."""


def all_checks(registry: Registry, mixer: str = "") -> dict[str, list[Check]]:
    """The checks of each table by its op: of the core, then of each plugin, or of one mixer's alone. Raises
    `UnknownNameError` for a mixer that there is not."""
    names = [mixer] if mixer else [known.name for known in registry.mixers()]
    found = [] if mixer else list(core_checks())
    for name in names:
        found += registry.measured(registry.resolve(name).plugin.name).checks()
    by_op: dict[str, list[Check]] = {}
    for check in found:
        by_op.setdefault(check.table.op, []).append(check)
    return by_op


def card_here() -> torch.device:
    """The device that proves rows; raises `KernelUnavailableError` where there is none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hindrance = obstacle(device)
    if hindrance is None:
        return device
    if device.type == "cuda":
        raise KernelUnavailableError(f"nothing can be proven here: {hindrance}")
    raise KernelUnavailableError(
        "nothing can be proven here: torch finds no CUDA device. Run it where the card is; TRITON_INTERPRET=1 only "
        "tries the rows on the CPU"
    )


def rows_here(tables: list[Table], device: torch.device, *, candidates: bool = False) -> Iterator[Row]:
    """Every row that the tables have for a card's architecture, in each dtype that is proven beforehand; or, of each,
    every candidate."""
    machine = machine_of(device)
    assert machine is not None
    for table in tables:
        for key in table.rows:
            if key[0] == machine.arch:
                for dtype in dtypes_of(device):
                    row = Row(table=table, key=key, dtype=dtype, device=str(device), machine=machine)
                    numbers = table.numbers(key) if candidates else (None,)
                    yield from (replace(row, candidate=number) for number in numbers)


def dtypes_of(device: torch.device) -> Sequence[str]:
    """In which rows are proven beforehand on a device."""
    return DTYPES if device.type == "cuda" else ON_THE_CPU


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of a row: its proof, or why it was not tried."""

    row: Row
    proof: Proof | None
    reason: str = ""

    @property
    def status(self) -> str:
        """In a word or two."""
        if self.proof is None:
            return "not tried"
        return "passed" if self.proof.passed else "failed"

    @property
    def fault(self) -> str:
        """What is wrong, empty when all is well."""
        return self.reason if self.proof is None else self.proof.fault


def prove_rows(
    rows: Sequence[Row],
    prover: Prover,
    *,
    jobs: int = 1,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Answered]:
    """Every row as it is answered, `jobs` at a time; what is not begun after so many seconds is not tried."""
    start = clock()

    def prove(row: Row) -> Answered:
        if clock() - start > seconds:
            return Answered(row=row, proof=None, reason=f"out of time: {seconds:g} s were given")
        try:
            return Answered(row=row, proof=prover.prove(row))
        except NotTriedError as error:
            return Answered(row=row, proof=None, reason=str(error))

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in as_completed([pool.submit(prove, row) for row in rows]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def by_worth(rows: Iterable[Row]) -> list[Row]:
    """What most models use first: head dims about 128, in bfloat16."""
    dims = {dim: rank for rank, dim in enumerate((128, 64, 256, 32, 16))}
    return sorted(rows, key=lambda row: (DTYPES.index(row.dtype), dims.get(row.key[1], 0)))


def dtype_named(name: str) -> torch.dtype:
    """A dtype of operands by its name, as "bfloat16"."""
    return {str(dtype).removeprefix("torch."): dtype for dtype in KERNEL_DTYPES}[name]


def key_of(given: list[str | int]) -> Key:
    """A row's key that travelled as JSON."""
    arch, head_dim, chunk = given
    return str(arch), int(head_dim), int(chunk)
