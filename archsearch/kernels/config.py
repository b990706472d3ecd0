"""Configurations of an op's kernels: a small fixed table, so that a new length never compiles anything new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from archsearch.errors import KernelUnavailableError
from archsearch.evidence.proofs import Proof, proofs

Key: TypeAlias = tuple[str, int, int]
"""Architecture ("sm_90"), the largest head dim that the row serves, and the chunk (0 where an op has none)."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How one kernel is compiled: its tile sizes by name, warps a program, stages of its loads."""

    tiles: Mapping[str, int]
    num_warps: int = 4
    num_stages: int = 2

    @classmethod
    def of(cls, num_warps: int, num_stages: int, **tiles: int) -> Config:
        """Warps, stages, and tiles by name: short enough for a table."""
        return cls(tiles=tiles, num_warps=num_warps, num_stages=num_stages)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The rows of one op: for each key the configuration of each of its kernels, by the kernel's name.

    ``package`` is the plugin's import package, whose ``verified.json`` lists the rows that passed on a card.
    """

    op: str
    package: str
    rows: Mapping[Key, Mapping[str, Config]]
    _forced: list[Key] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        tables[self.op] = self

    def key(self, arch: str, head_dim: int, chunk: int = 0) -> Key:
        """The row that serves a head dim: of the smallest that holds it, the largest chunk within `chunk`, or else
        the smallest chunk. Raises `KernelUnavailableError` when there is none."""
        if self._forced:
            return self._forced[-1]
        of_arch = [key for key in self.rows if key[0] == arch]
        if not of_arch:
            known = ", ".join(sorted({key[0] for key in self.rows}))
            raise KernelUnavailableError(f"{self.op} has no Triton configuration for {arch}, only for {known}")
        wide = min((dim for _, dim, _ in of_arch if dim >= head_dim), default=None)
        if wide is None:
            largest = max(dim for _, dim, _ in of_arch)
            raise KernelUnavailableError(
                f"{self.op}: head_dim = {head_dim} has no Triton configuration on {arch}: {largest} is the largest"
            )
        chunks = sorted(key[2] for key in of_arch if key[1] == wide)
        return (arch, wide, max((size for size in chunks if size <= chunk), default=chunks[0]))

    def pick(self, arch: str, head_dim: int, chunk: int = 0) -> Mapping[str, Config]:
        """The configurations of `key`'s row."""
        return self.rows[self.key(arch, head_dim, chunk)]

    def proof(self, key: Key) -> Proof | None:
        """The proof on a card that covers a row with today's source and Triton, if there is one."""
        return next((proof for proof in proofs(self.package) if proof.key == key and proof.op == self.op), None)

    @contextmanager
    def forced(self, key: Key) -> Iterator[None]:
        """While the block runs, `key` serves every call: how each row is put to the proof."""
        if key not in self.rows:
            raise KernelUnavailableError(f"{self.op} has no Triton configuration {key}: there are {list(self.rows)}")
        self._forced.append(key)
        try:
            yield
        finally:
            self._forced.pop()


tables: dict[str, Table] = {}
"""Every table that has been imported, by op: a compiled graph can name an op, but not hold its table."""
