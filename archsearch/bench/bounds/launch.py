"""LaunchBound: the times below which one launch cannot come, and which of them keeps it longest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from archsearch.bench.bounds.counts import Counts, asked, count, note_written, size_of
from archsearch.kernels.launches import Launch
from archsearch.kernels.machine_code.cards import Card
from archsearch.kernels.machine_code.code import Code, code_of

Limit: TypeAlias = Literal["memory", "cache", "matrix", "issue", "special", "waiting"]
_SM_BYTES_A_CLOCK = 64
"""That an SM takes from L2 (CUDA's tuning guides)."""


@dataclass(frozen=True, kw_only=True)
class LaunchBound:
    """One launch on a card: ``resident`` programs an SM holds, kept from more by ``held_by``, so that they run in
    ``waves``; ``moved_bytes`` of memory, each argument at most once in and once out; ``asked_bytes`` of L2.
    ``uncertain``: a branch depended on numbers that nobody had."""

    kernel: str
    digest: str
    programs: int
    num_warps: int
    registers: int
    shared_bytes: int
    resident: int
    held_by: str
    waves: int
    flops: float
    moved_bytes: float
    asked_bytes: float
    passes: float
    seconds_by: Mapping[Limit, float]
    uncertain: bool

    @property
    def seconds(self) -> float:
        """The longest of the times."""
        return self.seconds_by[self.limit]

    @cached_property
    def limit(self) -> Limit:
        """Which time that is."""
        return max(self.seconds_by, key=lambda limit: self.seconds_by[limit])

    @property
    def reason(self) -> str:
        """The limit in words, with the figures that it comes from."""
        fits = f"{self.programs} programs, {self.resident} an SM ({self.held_by}), {self.waves} in turn"
        return {
            "memory": f"moves {self.moved_bytes / 1e9:.2f} GB",
            "cache": f"asks L2 for {self.asked_bytes / 1e9:.2f} GB, {self._again:.1f} times what it moves; {fits}",
            "matrix": f"{self.flops / 1e9:.0f} GFLOP of matrix instructions; {fits}",
            "issue": f"instructions around {self.flops / 1e9:.0f} GFLOP of products; {fits}",
            "special": f"exponentials and divisions; {fits}",
            "waiting": f"{self.passes:.0f} passes one after another; {fits}",
        }[self.limit]

    @property
    def _again(self) -> float:
        return self.asked_bytes / max(self.moved_bytes, 1.0)


Compile: TypeAlias = Callable[[Launch], Code]


Known: TypeAlias = dict[str, tuple["LaunchBound", frozenset[str]]]
"""Of launches by all that they depend on: their bounds, and the arguments that they write."""


def bound_launches(
    launches: Sequence[Launch], op: str, card: Card, cache: Path | None, known: Known | None = None
) -> list[LaunchBound]:
    """The bounds of each launch; compiles what the `cache` folder does not hold, and follows only what is not `known`
    of the same card, to which it adds."""
    unknown: set[int] = set()
    held: Known = {} if known is None else known
    found = []
    for launch in launches:
        code = code_of(launch.build(op), card.arch, cache)
        mark = f"{code.compiled.digest} {launch.grid} {asked(launch, unknown)}"
        if mark not in held:
            counts = count(launch, code, card, unknown)
            written = frozenset(name for name, touched in counts.memory.items() if touched.written)
            held[mark] = _bound(launch, code, counts, card), written
        bound, written = held[mark]
        note_written(launch, written, unknown)
        found.append(bound)
    return found


def _bound(launch: Launch, code: Code, counts: Counts, card: Card) -> LaunchBound:
    compiled, programs = code.compiled, launch.programs
    resident, held_by = card.resident(
        registers=compiled.registers, shared_bytes=compiled.shared_bytes, num_warps=launch.num_warps
    )
    waves = math.ceil(programs / (card.multiprocessors * max(resident, 1)))
    each = math.ceil(programs / card.multiprocessors)  # programs of the busiest SM
    moved = _moved(launch, counts)
    asked = counts.sectors * programs
    matrix = _matrix_seconds(counts, card, launch.num_warps)
    clocks = max(counts.loads_clocks, counts.phases_clocks)
    busy = each / card.clock
    seconds: dict[Limit, float] = {
        "memory": moved / card.memory,
        "cache": max(asked / card.cache, counts.sectors * busy / _SM_BYTES_A_CLOCK),
        "matrix": max(matrix[0] * each, matrix[1] * waves),
        "issue": counts.issued * busy / card.issue_rate,
        "special": counts.special * busy * 32 / card.special_lanes,
        "waiting": clocks * waves / card.clock,
    }
    return LaunchBound(
        kernel=launch.fn.__name__,
        digest=compiled.digest,
        programs=programs,
        num_warps=launch.num_warps,
        registers=compiled.registers,
        shared_bytes=compiled.shared_bytes,
        resident=resident,
        held_by=held_by,
        waves=waves,
        flops=sum(counts.flops.values()) * programs,
        moved_bytes=moved,
        asked_bytes=asked,
        passes=counts.passes,
        seconds_by=seconds,
        uncertain=counts.unknown,
    )


def _moved(launch: Launch, counts: Counts) -> float:
    """Bytes that memory reads and writes at least: of each argument what is asked for, but never more than it has."""
    total = 0.0
    for name, touched in counts.memory.items():
        size = size_of(launch.arguments.get(name)) if name else math.inf
        total += sum(min(part * launch.programs, size) for part in (touched.read, touched.written)) if name else 0.0
    return total


def _matrix_seconds(counts: Counts, card: Card, num_warps: int) -> tuple[float, float]:
    """Of one program on one SM: when the whole SM works for it, and by the warps that it has, one for each of the SM's
    four tensor cores."""
    whole = sum(
        flops * card.multiprocessors / card.matrix_rate(unit, kind) for (unit, kind), flops in counts.flops.items()
    )
    return whole, whole * max(1.0, 4 / num_warps)
