"""Proofs: which rows of a plugin's tables passed every check on a card, with which source and which Triton."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from archsearch.evidence.digests import source_digest
from archsearch.evidence.records import Record, Records

SHARED = "archsearch.ops.triton"
"""Device code that plugins share, and that each of their proofs covers too."""


class Proof(Record):
    """A row that passed: on which card, with which versions, and the digest of the source that ran."""

    op: str
    arch: str
    head_dim: int
    chunk: int
    source: str
    card: str
    driver: str
    torch: str
    triton: str
    ptxas: str
    date: str

    @property
    def key(self) -> tuple[str, int, int]:
        """The row of the table."""
        return self.arch, self.head_dim, self.chunk

    @property
    def identity(self) -> tuple[str, tuple[str, int, int], str]:
        """The row of its op, and the Triton."""
        return self.op, self.key, self.triton


class Proofs(Records[Proof]):
    """The list in a Triton folder."""

    FILE: ClassVar[str] = "verified.json"
    HOLDS: ClassVar[str] = "proofs of kernels"
    REMEDY: ClassVar[str] = "delete it and prove the rows on a card again (make gpu)"


@cache
def proofs(package: str) -> Sequence[Proof]:
    """The proofs in a package's list that hold for the source and the Triton that are installed.

    A miscompilation comes and goes with the version of Triton, so a proof under another one proves nothing here.
    """
    source, installed = proven_source(package), triton_version()
    return [proof for proof in Proofs.listed(package) if proof.source == source and proof.triton == installed]


def proven_source(package: str) -> str:
    """Digest of all that decides what the kernels of a Triton folder compute: device code, host code, tables, and the
    whole of what plugins share."""
    return source_digest(package, SHARED)


def triton_version() -> str | None:
    """The version of Triton that is installed, None for none."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None
