"""Picture of what ops reach of the bound, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from archsearch.bench.results.schema import OURS, KernelRow, Results
from archsearch.cli.bench_tables import heading
from archsearch.errors import ArchsearchError

WIDTH_INCHES, ROW_INCHES, AROUND_INCHES = 10.0, 0.26, 2.0
_INK, _OURS, _GRID = "#222222", "#1f5fa8", "#e3e5e8"
_PEERS = ("#b4541a", "#4b8b3b", "#8a5fa8", "#777777", "#c0a020")


def write_bench_picture(results: Sequence[Results], path: Path) -> None:
    """Writes the share of the bound of every measured row to `path`, one line a case, and card where there are several,
    a mark a contender.

    Raises `ArchsearchError` where there is nothing to draw or the file cannot be written.
    """
    drawn_files = [file for file in results if any(row.measured is not None for row in file.kernels)]
    if not drawn_files:
        raise ArchsearchError("there is nothing to draw: no op was measured in these files")
    cards = dict.fromkeys(file.environment.card for file in drawn_files)
    told = [
        (_label(row) + (f" {file.environment.card}" if len(cards) > 1 else ""), row)
        for file in drawn_files
        for row in file.kernels
        if row.measured is not None
    ]
    rows, labels = [row for _, row in told], list(dict.fromkeys(label for label, _ in told))
    figure = Figure(figsize=(WIDTH_INCHES, AROUND_INCHES + ROW_INCHES * len(labels)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, color in _colours(rows).items():
        drawn = [(label, row) for label, row in told if row.contender == name]
        ours = name == OURS
        axes.scatter(
            [100 * row.measured.fraction for _, row in drawn if row.measured is not None],
            [labels.index(label) for label, _ in drawn],
            marker="o" if ours else "D",
            s=42 if ours else 26,
            color=color,
            label=name,
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log")
    axes.set_xlabel("share of the bound, %", color=_INK)
    axes.set_yticks(range(len(labels)), labels, fontsize=8, family="monospace")
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", color=_GRID, linewidth=0.7)
    axes.grid(axis="y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.axvline(100, color=_INK, linewidth=1)
    axes.set_title("\n".join(map(heading, _last_of_each(drawn_files))), fontsize=8, loc="left", color=_INK)
    axes.legend(
        fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.6 / max(2.0, ROW_INCHES * len(labels))), ncols=4
    )
    try:
        figure.savefig(path, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise ArchsearchError(f"cannot write the picture {path}: {error}: name another file, as bench.png") from None


def _last_of_each(files: Sequence[Results]) -> list[Results]:
    """Of each card its last file."""
    return list({file.environment.card: file for file in files}.values())


def _label(row: KernelRow) -> str:
    return f"{row.op} {row.phase} {row.shape}"


def _colours(rows: Sequence[KernelRow]) -> dict[str, str]:
    names = sorted({row.contender for row in rows} - {OURS})
    peers = {name: _PEERS[index % len(_PEERS)] for index, name in enumerate(names)}
    return {**peers, **({OURS: _OURS} if any(row.contender == OURS for row in rows) else {})}
