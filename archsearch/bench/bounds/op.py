"""OpBound: what the kernels of an op can reach at best, beside the bound of the op itself and beside measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from archsearch.bench.bounds.launch import Known, LaunchBound, bound_launches
from archsearch.bench.bounds.tracing import trace
from archsearch.bench.op import BenchOp
from archsearch.bench.results.schema import OURS, KernelRow, Results, shape_text
from archsearch.bench.results.work import Ceilings, Shape
from archsearch.kernels.machine_code.cards import Card

THIRD = 1 / 3
_PART = 0.2
"""Of an op's time: launches below it are no reason."""


@dataclass(frozen=True, kw_only=True)
class OpBound:
    """One op, shape and phase on the card of an architecture: the bounds of its launches, and ``op_seconds``, which no
    implementation can come below (see docs/benchmarks.md)."""

    arch: str
    op: str
    phase: str
    shape: Shape
    sizes: dict[str, int]
    op_seconds: float
    op_bytes: float
    launches: Sequence[LaunchBound]

    @property
    def seconds(self) -> float:
        """The launches one after another."""
        return sum(launch.seconds for launch in self.launches)

    @property
    def share(self) -> float:
        """Of the op's bound, which the kernels reach at most."""
        return self.op_seconds / self.seconds if self.seconds else 0.0

    @property
    def short(self) -> bool:
        """Whether that is less than a third."""
        return self.share < THIRD

    @property
    def worst(self) -> list[LaunchBound]:
        """The launches that take most of the time, longest first; of equal ones one."""
        seen: dict[tuple[str, float], LaunchBound] = {}
        for launch in self.launches:
            seen.setdefault((launch.digest, launch.seconds), launch)
        longest = sorted(seen.values(), key=lambda launch: -launch.seconds)
        return [launch for launch in longest if launch.seconds >= _PART * self.seconds] or longest[:1]

    @property
    def shape_text(self) -> str:
        """The shape for people, as in the rows of `bench kernels`."""
        shape = self.shape
        return shape_text(shape.batch, shape.tokens, shape.heads, shape.kv_heads, shape.head_dim, self.sizes)

    @property
    def case(self) -> tuple[object, ...]:
        """What a measured row of the same architecture, op, phase and shape has in common with it."""
        shape = self.shape
        at = shape.batch, shape.tokens, shape.heads, shape.kv_heads, shape.head_dim
        return self.arch, self.op, self.phase, *at, tuple(sorted(self.sizes.items()))


def bound_op(
    op: BenchOp, shape: Shape, phase: str, card: Card, cache: Path | None, known: Known | None = None
) -> OpBound:
    """The bounds of one call, in bfloat16, as the tables stand: within `Table.forced`, of that row. Launches that are
    `known` are not followed again, and others are added."""
    work = op.work(shape, 2)
    work = work.trained() if phase == "forward+backward" else work
    rates = Ceilings(copy_bytes_per_second=card.memory, matmul_flops_per_second=card.matrix)
    return OpBound(
        arch=card.arch,
        op=op.name,
        phase=phase,
        shape=shape,
        sizes=dict(op.sizes),
        op_seconds=rates.bound_seconds(work),
        op_bytes=work.moved_bytes,
        launches=bound_launches(trace(op, shape, phase, card.arch), op.name, card, cache, known),
    )


def rank_correlation(bounds: Iterable[OpBound], results: Iterable[Results]) -> dict[str, tuple[float, int]]:
    """By card Spearman's correlation between the bounds of its architecture and the times of our kernels that it
    measured at the same ops and shapes, and of how many; no card with fewer than three. Of a case in several files of a
    card the last counts."""
    bounds, measured = list(bounds), dict[str, dict[tuple[object, ...], float]]()
    for file in sorted(results, key=lambda file: file.environment.date):
        of_card = measured.setdefault(file.environment.card, {})
        for row in file.kernels:
            if row.contender == OURS and row.form == "triton" and row.measured is not None:
                of_card[file.environment.arch, *_case(row)] = row.measured.ms.median
    found = {}
    for card, times in measured.items():
        pairs = [(bound.seconds, times[bound.case]) for bound in bounds if bound.case in times]
        if len(pairs) >= 3:
            frame = pd.DataFrame(pairs, columns=["bound", "measured"])
            found[card] = float(frame["bound"].rank().corr(frame["measured"].rank())), len(pairs)
    return found


def _case(row: KernelRow) -> tuple[object, ...]:
    return *row.case, tuple(sorted(row.sizes.items()))
