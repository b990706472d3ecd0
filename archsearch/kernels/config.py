"""Configurations of an op's kernels: a small fixed table, so that a new length never compiles anything new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from archsearch.errors import KernelUnavailableError, SpecError, listing
from archsearch.evidence.kept import kept_here
from archsearch.evidence.proofs import Machine, Proof, proofs
from archsearch.kernels.device import interpreting

if TYPE_CHECKING:
    import torch

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


Configs: TypeAlias = Mapping[str, Config]
"""Of each kernel of a row, by its name."""


def digest_of_configs(configs: Configs) -> str:
    """8 hexadecimal digits."""
    text = repr(sorted((name, asdict(config)) for name, config in configs.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The rows of one op: for each key the configuration of each of its kernels, by the kernel's name.

    ``package`` is the import package of the kernels, whose ``verified.json`` lists rows that passed on a card.
    ``candidates`` are other configurations of a row, each of some or all of its kernels, among which
    ``archsearch kernels tune`` finds the fastest. ``exact`` are other configurations again of some of a row's kernels,
    for operands in float32: where no matrix instruction makes the products, sums stand in registers, of which tiles for
    fewer bits leave too few. Interpreted float32 stands for fewer bits, unless a row is forced with its exact ones.
    """

    op: str
    package: str
    rows: Mapping[Key, Configs]
    candidates: Mapping[Key, Sequence[Configs]] = field(default_factory=dict)
    exact: Mapping[Key, Configs] = field(default_factory=dict)
    _forced: list[tuple[Key, bool]] = field(default_factory=list, init=False, repr=False)
    _built_exact: bool = field(default=False, init=False, repr=False)
    _used: dict[Key, int | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        tables[self.op] = self

    def key(self, arch: str, head_dim: int, chunk: int = 0) -> Key:
        """The row that serves a head dim: of the smallest that holds it, the largest chunk within `chunk`, or else
        the smallest chunk. Raises `KernelUnavailableError` when there is none."""
        if self._forced:
            return self._forced[-1][0]
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

    def pick(self, arch: str, head_dim: int, chunk: int = 0) -> Configs:
        """The configurations of `key`'s row, as `row` has them."""
        return self.row(self.key(arch, head_dim, chunk))

    def row(self, key: Key, dtype: torch.dtype | None = None) -> Configs:
        """The configurations that a row runs with on operands of a dtype: the table's own, or those of the candidate in
        `use`, and where float32 takes its own those in their place."""
        exact = self._built_exact or (dtype is not None and self._takes_exact(dtype))
        return self.configs(key, self.candidate(key), exact=exact)

    def _takes_exact(self, dtype: torch.dtype) -> bool:
        import torch

        return dtype == torch.float32 and (not interpreting() or any(exact for _, exact in self._forced[-1:]))

    def configs(self, key: Key, candidate: int | None = None, *, exact: bool = False) -> Configs:
        """The table's own configurations of a row, or those that the candidate of that number makes of them, or either
        with those for float32 in their place."""
        other = {} if candidate is None else self.candidates[key][candidate]
        return {**self.rows[key], **other, **(self.exact.get(key, {}) if exact else {})}

    def candidate(self, key: Key) -> int | None:
        """The number of the candidate that a row runs with, None for the table's own configurations."""
        return self._used.get(key)

    def use(self, key: Key, candidate: int | None) -> None:
        """From now on the row runs with that candidate; None: with the table's own configurations."""
        self._used[key] = candidate

    @contextmanager
    def using(self, key: Key, candidate: int | None) -> Iterator[None]:
        """While the block runs, the row runs with that candidate, with the table's own configurations for None."""
        before = self.candidate(key)
        self.use(key, candidate)
        try:
            yield
        finally:
            self.use(key, before)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """While the block runs, operands of any dtype take a row's exact configurations: how these are listed."""
        before = self._built_exact
        object.__setattr__(self, "_built_exact", True)
        try:
            yield
        finally:
            object.__setattr__(self, "_built_exact", before)

    def numbers(self, key: Key) -> range:
        """The numbers of a row's candidates."""
        return range(len(self.candidates.get(key, ())))

    def digest(self, key: Key, candidate: int | None) -> str:
        """Of a candidate's configurations, empty for the table's own."""
        return "" if candidate is None else digest_of_configs(self.configs(key, candidate))

    def proof(self, key: Key, dtype: str = "bfloat16", machine: Machine | None = None) -> Proof | None:
        """The proof that covers a row in a dtype with today's source and Triton, if there is one: of the package's
        list, or of what was proven on `machine`."""
        found = self.tried(key, dtype, machine, self.candidate(key))
        return found if found is not None and found.passed else None

    def tried(self, key: Key, dtype: str, machine: Machine | None, candidate: int | None) -> Proof | None:
        """`proof`, or what a row came to that failed on `machine`; not one that ran out of time."""
        found = [proof for proof in self._records(key, dtype, machine, candidate) if not proof.timeouts]
        # what failed here counts, whatever is listed of other cards; of several that passed the last was proven here
        return next((proof for proof in found if not proof.passed), found[-1] if found else None)

    def timed_out(self, key: Key, dtype: str, machine: Machine, candidate: int | None) -> Proof | None:
        """What was kept of a row whose last attempt on `machine` ran out of time."""
        return next((proof for proof in self._records(key, dtype, machine, candidate) if proof.timeouts), None)

    def _records(self, key: Key, dtype: str, machine: Machine | None, candidate: int | None) -> list[Proof]:
        wanted = self.op, key, dtype, self.digest(key, candidate)
        records = (*proofs(self.package), *(kept_here(self.package, machine) if machine else ()))
        return [proof for proof in records if (proof.op, proof.key, proof.dtype, proof.config) == wanted]

    @contextmanager
    def forced(self, key: Key, *, exact: bool = False) -> Iterator[None]:
        """While the block runs, `key` serves every call: how each row is put to the proof; `exact`: interpreted too
        with its configurations for float32."""
        if key not in self.rows:
            raise KernelUnavailableError(f"{self.op} has no Triton configuration {key}: there are {list(self.rows)}")
        self._forced.append((key, exact))
        try:
            yield
        finally:
            self._forced.pop()


def check_arch(arch: str, held: Iterable[Table]) -> None:
    """Raises `SpecError` for an architecture of which no table has rows."""
    known = {key[0] for table in held for key in table.rows}
    if arch not in known:
        raise SpecError(f"--arch {arch}: no table of kernels has rows for it; there are {listing(known)}")


tables: dict[str, Table] = {}
"""Every table that has been imported, by op: a compiled graph can name an op, but not hold its table."""
