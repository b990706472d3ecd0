"""Modelled candidates: the bounds of a row's configurations by their machine code, in the order that they give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from archsearch.evidence.bounds import digest_of_kernels
from archsearch.evidence.records import Record, Records, row_text

OWN = -1
"""In place of a candidate's number: the table's own configurations."""


class Taken(BaseModel):
    """What a launch takes of a card: ``resident`` programs an SM, kept from more by ``held_by``; ``ms`` and ``limit``
    are its bound and the time that it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str
    registers: int
    shared_bytes: int
    resident: int
    held_by: str
    limit: str
    ms: float

    @property
    def text(self) -> str:
        """For people."""
        fits = f"{self.resident} an SM ({self.held_by}), {self.shared_bytes / 1024:.0f} KiB"
        return f"{self.kernel} {self.ms:.3f} ms, {self.limit}: {fits}, {self.registers} registers"


class Modelled(Record):
    """The table's own configurations of a row, or those of a candidate, by the model. ``config`` is their digest, empty
    for the table's own, ``changes`` what a candidate changes, ``seconds`` the bound at each of the ``sizes``, ``taken``
    the launches that differ between the row's configurations. ``kernels`` is the digest of the kernels of the table on
    the architecture, as `digest_of_kernels` has it, which a changed comment or check leaves as it is, and by which
    measurements are found."""

    op: str
    arch: str
    head_dim: int
    chunk: int
    candidate: int
    config: str
    changes: str
    sizes: tuple[str, ...]
    seconds: tuple[float, ...]
    taken: tuple[Taken, ...]
    uncertain: bool
    triton: str
    ptxas: str
    kernels: str

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The op and the row of its table."""
        return self.op, self.arch, self.head_dim, self.chunk

    @property
    def identity(self) -> tuple[Any, ...]:
        """The row and the candidate."""
        return *self.key, self.candidate

    @property
    def row(self) -> str:
        """The row for people."""
        return f"{self.op} {row_text((self.arch, self.head_dim, self.chunk))}"

    @property
    def mean(self) -> float:
        """Of its seconds, the geometric one, so that no size counts for more than another."""
        return geometric(self.seconds)


class ModelledRows(Records[Modelled]):
    """A file of them."""

    FILE: ClassVar[str] = "candidates.json"
    HOLDS: ClassVar[str] = "modelled candidates"
    REMEDY: ClassVar[str] = "write one with archsearch kernels candidates --write"


def by_row(found: Iterable[Modelled]) -> dict[tuple[str, str, int, int], list[Modelled]]:
    """Of each row its configurations, the least bound first; of equal ones the table's own, then by number."""
    rows: dict[tuple[str, str, int, int], list[Modelled]] = {}
    for one in found:
        rows.setdefault(one.key, []).append(one)
    return {key: sorted(ones, key=lambda one: (one.mean, one.candidate)) for key, ones in rows.items()}


def gains(ordered: Sequence[Modelled]) -> Mapping[int, float]:
    """By candidate its bound over that of the table's own: 0.9 is a tenth less. Empty where the own is not among
    them."""
    own = next((one.mean for one in ordered if one.candidate == OWN), None)
    return {} if own is None else {one.candidate: one.mean / own for one in ordered}


def shorter(ordered: Sequence[Modelled], share: float) -> Iterator[tuple[Modelled, str, float]]:
    """Candidates of a row whose bound at a size is below that share of the own configurations', with the size and the
    share that it is."""
    own = {
        size: bound
        for one in ordered
        if one.candidate == OWN
        for size, bound in zip(one.sizes, one.seconds, strict=True)
    }
    for one in ordered:
        for size, bound in zip(one.sizes, one.seconds, strict=True):
            if size in own and bound < share * own[size]:
                yield one, size, bound / own[size]


def stale_rows(found: Iterable[Modelled], digests: Mapping[str, str]) -> list[str]:
    """The rows whose bounds are of other kernels than those of `digests`, by label, each with the remedy."""
    return [
        f"{ones[0].row}: its kernels have changed since: archsearch kernels candidates --arch {ones[0].arch} --sizes 1 "
        f'--only "{ones[0].row}" --write FILE'
        for ones in by_row(found).values()
        if {one.kernels for one in ones} != {digest_of_kernels(digests, ones[0].op, ones[0].arch)}
    ]


def geometric(values: Sequence[float]) -> float:
    """The geometric mean, so that no size counts for more than another; 1 of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 1.0
