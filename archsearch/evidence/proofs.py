"""Proofs: which rows of a plugin's tables passed every check on a card, with which source and which Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from archsearch.evidence.digests import source_digest
from archsearch.evidence.records import Record, Records

SHARED = "archsearch.ops.triton"
"""Device code that plugins share, and that each of their proofs covers too."""
PICKED = "archsearch.kernels"
"""What picks the configurations of a row, in each dtype, and puts it to the proof."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides, beside the source, whether a kernel computes what it should: the card and its driver, and the
    versions that compile for it."""

    card: str
    arch: str
    driver: str
    torch: str
    triton: str
    ptxas: str


def card_label(name: str, driver: str) -> str:
    """A card with its driver, for people."""
    return f"{name}, driver {driver}"


class Proof(Record):
    """A row that was put to the proof in a dtype: on which card, with which versions, the digest of the source that
    ran, and what came of it.

    ``package`` is that of the kernels, empty in a package's own list,
    ``config`` is the digest of configurations other than the table's own, ``cases`` how many were tried, ``whole``
    whether those were all that there are, ``error`` the largest ratio of root mean squares, None where it is not
    finite, ``fault`` what was wrong, empty for a row that passed. ``timeouts`` counts the attempts in a row that ran
    out of time: a busy machine may be why, so that such a row has neither passed nor failed.
    """

    op: str
    package: str = ""
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
    dtype: str = "bfloat16"
    config: str = ""
    cases: int = 0
    whole: bool = True
    error: float | None = 0.0
    fault: str = ""
    timeouts: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        """The row of the table."""
        return self.arch, self.head_dim, self.chunk

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.fault

    @property
    def machine(self) -> Machine:
        """Where it was proven."""
        return Machine(
            card=self.card,
            arch=self.arch,
            driver=self.driver,
            torch=self.torch,
            triton=self.triton,
            ptxas=self.ptxas,
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """The row of its op, the dtype and the configuration, and the machine."""
        row = f"{self.head_dim:04}", f"{self.chunk:04}", self.dtype, self.config
        return (self.op, self.arch, *row, self.triton, self.card, self.driver, self.torch, self.ptxas)


class Proofs(Records[Proof]):
    """The list in a Triton folder."""

    FILE: ClassVar[str] = "verified.json"
    HOLDS: ClassVar[str] = "proofs of kernels"
    REMEDY: ClassVar[str] = "delete it and prove the rows on a card again (archsearch kernels prove)"


@cache
def proofs(package: str) -> Sequence[Proof]:
    """The proofs in a package's list that hold for the source and the Triton that are installed.

    A miscompilation comes and goes with the version of Triton, so a proof under another one proves nothing here.
    """
    source, installed = proven_source(package), triton_version()
    listed = Proofs.listed(package)
    return [proof for proof in listed if proof.passed and proof.source == source and proof.triton == installed]


def proven_source(package: str) -> str:
    """Digest of all that decides what the kernels of a Triton folder compute: device code, host code, tables, the
    whole of what plugins share, and how the configurations of a row are picked and put to the proof."""
    return source_digest(package, SHARED, PICKED)


def triton_version() -> str | None:
    """The version of Triton that is installed, None for none."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None
