"""Proofs: which rows of a plugin's tables passed every check on a card, with which source and which Triton."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from archsearch.kernels.source import digest_of, tree

FILE = "verified.json"
"""Name of the list in a plugin's Triton folder."""

SHARED = "archsearch.ops.triton"
"""Device code that plugins share, and that each of their proofs covers too."""


@dataclass(frozen=True, kw_only=True)
class Proof:
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


@cache
def proofs(package: str) -> Sequence[Proof]:
    """The proofs in a package's list that hold for the source and the Triton that are installed.

    A miscompilation comes and goes with the version of Triton, so a proof under another one proves nothing here.
    """
    source, installed = source_digest(package), triton_version()
    return [proof for proof in listed(package) if proof.source == source and proof.triton == installed]


def listed(package: str) -> Sequence[Proof]:
    """Every proof in a package's list, stale ones too; none where there is no list."""
    path = files(package).joinpath(FILE)
    return [Proof(**entry) for entry in json.loads(path.read_text())] if path.is_file() else []


@cache
def source_digest(package: str) -> str:
    """Digest of all that decides what the kernels of a Triton folder compute: device code, host code, tables, and the
    whole of what plugins share."""
    return digest_of((*tree(files(package)), *tree(files(SHARED))))


def triton_version() -> str | None:
    """The version of Triton that is installed, None for none."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None
