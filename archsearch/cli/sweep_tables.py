"""A sweep in the terminal: a table of the sizes, a chart for each number of pairs, and what must be known."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from archsearch.analysis.axes import ticks
from archsearch.analysis.sweep import COSTS, STATE, Sweep, SweepPoint
from archsearch.analysis.sweep_caveats import caveats
from archsearch.cli.chart import Axis, Paper, scatter
from archsearch.cli.output import table
from archsearch.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

_UNIT = {0.0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1.0: "1"}


def print_sweep(found: Sweep, against: str, out: Console) -> None:
    """The table, the charts, and the remarks on `out`."""
    marks = dict(zip(found.mixers, ascii_uppercase, strict=False))
    out.print(_table(found, marks))
    for pairs in found.pairs:
        drawn = _chart(found, pairs, against, marks, Paper.of(out))
        if drawn is not None:
            out.print(drawn, soft_wrap=True, markup=False)
    for line in caveats(found):
        out.print(line, soft_wrap=True, markup=False)


def _table(found: Sweep, marks: dict[str, str]) -> Any:
    groups: dict[tuple[str, int], list[SweepPoint]] = {}
    for point in found.points:
        groups.setdefault((point.layer, point.d_model), []).append(point)
    order = {mixer: index for index, mixer in enumerate(found.mixers)}
    rows = sorted(groups.values(), key=lambda points: (order[points[0].mixer], points[0].costs[STATE]))
    metric = found.points[0].score.metric
    columns = ["", "layer", ">d_model", ">state", f">at {found.context:,}", ">read"]
    columns += [f">{pairs} pairs" for pairs in found.pairs]
    title = f"{found.searches[0]}: {metric} on test, by the size of the state"
    return table(columns, (_cells(points, found.pairs, marks) for points in rows), title=title)


def _cells(points: Sequence[SweepPoint], pairs: Sequence[int], marks: dict[str, str]) -> list[str]:
    first = points[-1]
    by_pairs = {point.pairs: point for point in points}
    sizes = [first.costs[STATE], first.far[STATE], first.costs["decode_read_bytes"]]
    return [
        marks.get(first.mixer, ""),
        first.layer,
        str(first.d_model),
        *(format_quantity(size, unit="bytes") for size in sizes),
        *(_score(by_pairs.get(count)) for count in pairs),
    ]


def _score(point: SweepPoint | None) -> str:
    if point is None:
        return ""
    score = point.score
    if not isfinite(score.mean):
        return "diverged" if score.diverged else "none"
    return f"{score.mean:.3f}" + (f" ± {score.error:.3f}" if isfinite(score.error) else "")


def _chart(found: Sweep, pairs: int, against: str, marks: dict[str, str], paper: Paper) -> str | None:
    """The means of one number of pairs, a letter a mixer; None where there is nothing to draw."""
    marked = {
        mark: [
            (point.costs[against], point.score.mean)
            for point in found.curve(mixer, pairs, against)
            if isfinite(point.score.mean) and point.costs[against] > 0
        ]
        for mixer, mark in marks.items()
    }
    sizes = [size for points in marked.values() for size, _ in points]
    if len(set(sizes)) < 2:
        return None
    metric = found.points[0].score.metric
    across = Axis(label=f"{COSTS[against]}, log scale", ticks=ticks(sizes, unit="bytes", log=True), log=True)
    return scatter([], marked, across, Axis(label=f"{metric}, {pairs} pairs"), paper)
