"""Stored bounds: what the kernels of an op can reach by their machine code, with a digest of those kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from archsearch.evidence.records import Record, Records


class LaunchFigures(BaseModel):
    """One launch: its bound in milliseconds, which limit that is and why, what it takes of an SM, and all limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str
    ms: float
    limit: str
    reason: str
    registers: int
    shared_bytes: int
    warps: int
    resident: int
    by: Mapping[str, float]
    uncertain: bool


class BoundRecord(Record):
    """One op at one shape on one architecture: its own bound, the sum of its launches' bounds, and the share of the
    first in the second. ``table`` is the op of the table whose kernels run, ``kernels`` the digest of all of them."""

    op: str
    phase: str
    shape: str
    arch: str
    table: str
    kernels: str
    triton: str
    ptxas: str
    op_ms: float
    kernels_ms: float
    share: float
    launches: tuple[LaunchFigures, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """The case."""
        return self.arch, self.op, self.shape, self.phase

    @property
    def case(self) -> str:
        """For people."""
        return f"{self.op} {self.phase} {self.shape} {self.arch}"


class BoundRecords(Records[BoundRecord]):
    """A file of them."""

    FILE: ClassVar[str] = "bounds.json"
    HOLDS: ClassVar[str] = "bounds of ops"
    REMEDY: ClassVar[str] = "write one with archsearch kernels model --write"

    @classmethod
    def renew(cls, path: Path, new: Iterable[BoundRecord], modelled: Iterable[tuple[str, ...]]) -> None:
        """Puts records into a file, which need not be there yet; of cases that were `modelled`, by their identities,
        those that are not `new` leave it."""
        gone = set(modelled)
        held = cls.read(path) if path.is_file() else cls()
        kept = [record for record in held.records if record.identity not in gone]
        cls(records=(*kept, *new)).write(path)


_OTHERS = ("float32", "narrow-keys")
"""Words in the label of a kernel of which nothing is modelled."""


def digest_of_kernels(digests: Mapping[str, str], table: str, arch: str) -> str:
    """16 hexadecimal digits of the kernels of a table on an architecture, of the digests of all by their labels: of
    their device code, types, constants and configurations; empty where there are none. Without those in float32 or
    for keys that are narrower than values, of which nothing is modelled."""
    own = ((label, digest) for label, digest in digests.items() if label.startswith(f"{table} "))
    held = sorted(
        (label, digest)
        for label, digest in own
        if label.endswith(f" {arch}") and not any(f" {word} " in label for word in _OTHERS)
    )
    return hashlib.sha256(repr(held).encode()).hexdigest()[:16] if held else ""


def stale_bounds(records: Iterable[BoundRecord], digests: Mapping[str, str]) -> list[str]:
    """The cases whose figures are of other kernels than those of `digests`, by label, each with the remedy."""
    return [
        f"{record.case}: the kernels of {record.table} have changed since: archsearch kernels model --op {record.op} "
        f"--arch {record.arch} --write FILE"
        for record in records
        if record.kernels != digest_of_kernels(digests, record.table, record.arch)
    ]
