"""Tuned rows: the configurations that were fastest on a machine, beside the proofs in this user's cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from archsearch.errors import SpecError
from archsearch.evidence.folder import cache_folder
from archsearch.evidence.kept import add_kept
from archsearch.evidence.proofs import Machine, proven_source
from archsearch.evidence.records import Record, Records

FILE = "tuned.json"


class Tuned(Record):
    """What a row runs with on a machine: ``config`` is the digest of a candidate's configurations, empty for the
    table's own; ``seconds`` are of each configuration that was timed, by digest, a number a size: of those that are
    right. ``source`` is the digest of all that a proof covers, with which the row is used, ``kernels`` that of the
    table's kernels alone, as `digest_of_kernels` has it, with which its times are compared, empty for none that is
    known."""

    package: str
    op: str
    arch: str
    head_dim: int
    chunk: int
    source: str
    kernels: str = ""
    machine: tuple[str, ...]
    config: str
    seconds: Mapping[str, tuple[float, ...]]
    date: str

    @property
    def key(self) -> tuple[str, int, int]:
        """The row of the table."""
        return self.arch, self.head_dim, self.chunk

    @property
    def identity(self) -> tuple[str, ...]:
        """The row and the machine."""
        return self.op, self.arch, f"{self.head_dim:04}", f"{self.chunk:04}", *self.machine


class TunedRows(Records[Tuned]):
    """The file in the cache."""

    FILE: ClassVar[str] = FILE
    HOLDS: ClassVar[str] = "tuned rows"
    REMEDY: ClassVar[str] = "delete it and tune on a card again (archsearch kernels tune)"


def tuned_row(op: str, package: str, key: tuple[str, int, int], machine: Machine) -> Tuned | None:
    """What was kept of a row for today's source on a machine; None where nothing was, or nothing can be read."""
    path = cache_folder() / FILE
    try:
        records = TunedRows.read(path).records if path.is_file() else ()
    except SpecError:
        return None  # it chooses among rows that are right, so that nothing is lost but time
    wanted = op, key, named(machine), proven_source(package)
    return next((row for row in records if (row.op, row.key, row.machine, row.source) == wanted), None)


def keep_tuned(*rows: Tuned) -> None:
    """Adds rows, in place of older ones; raises `SpecError` where nothing can be written, also for no rows."""
    add_kept(TunedRows, cache_folder() / FILE, rows)


def named(machine: Machine) -> tuple[str, ...]:
    """A machine in a record."""
    return machine.card, machine.driver, machine.torch, machine.triton, machine.ptxas
