"""Picture of a sweep, drawn with matplotlib: a panel a number of pairs, a line a mixer; and its points as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from archsearch.analysis.axes import ticks
from archsearch.analysis.csv_text import csv_bytes
from archsearch.analysis.sweep import COSTS, Sweep, SweepPoint
from archsearch.cli.output import writing
from archsearch.errors import ArchsearchError

PANEL_INCHES, HEIGHT_INCHES, MOST_COLUMNS = 3.1, 3.0, 4
_INK, _FAINT, _GRID = "#222222", "#b9bec6", "#e8eaee"
_LINES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", ":", "D"),
    ("#E69F00", "-.", "^"),
    ("#CC79A7", (0, (6, 2)), "P"),
    ("#56B4E9", (0, (6, 2, 1, 2)), "*"),
)
"""Colours of Okabe and Ito, dashes and markers, in the order of the mixers."""


def write_sweep_picture(found: Sweep, against: str, path: str) -> None:
    """Writes the curves to `path`, in the format of its suffix; raises `ArchsearchError` where it cannot be written."""
    columns = min(MOST_COLUMNS, len(found.pairs))
    rows = -(-len(found.pairs) // columns)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "archsearch"}):
        figure = Figure(figsize=(PANEL_INCHES * columns + 0.4, HEIGHT_INCHES * rows + 0.7), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
        for axes, pairs in zip(panels, found.pairs, strict=False):
            _panel(axes, found, pairs, against)
        for axes in panels[len(found.pairs) :]:
            axes.set_visible(False)
        _across(panels, [point.costs[against] for point in found.points])
        figure.supxlabel(f"{COSTS[against]}, bytes at the task's length (log2)", fontsize=9, color=_INK)
        figure.supylabel(f"{found.points[0].score.metric} on test", fontsize=9, color=_INK)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=min(6, len(labels)), fontsize=8, frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
        _save(figure, path)


def _save(figure: Figure, path: str) -> None:
    undated = {"Date": None} if path.endswith(".svg") else None
    try:
        figure.savefig(path, metadata=undated)
    except (OSError, ValueError) as error:
        raise ArchsearchError(f"cannot write the picture {path}: {error}: name another file, as recall.svg") from None


def _panel(axes: Axes, found: Sweep, pairs: int, against: str) -> None:
    chance = next(point.chance for point in found.points if point.pairs == pairs)
    axes.axhline(chance, color=_FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for index, mixer in enumerate(found.mixers):
        _line(axes, mixer, index, found.curve(mixer, pairs, against), against)
    axes.set_title(f"{pairs} pairs", fontsize=9, color=_INK)
    axes.set_ylim(-0.03, 1.04)
    axes.tick_params(labelsize=8, color=_FAINT)
    axes.grid(color=_GRID, linewidth=0.8, zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _line(axes: Axes, mixer: str, index: int, points: Sequence[SweepPoint], against: str) -> None:
    known = [point for point in points if isfinite(point.score.mean) and point.costs[against] > 0]
    colour, dash, marker = _LINES[index % len(_LINES)]
    axes.errorbar(
        [point.costs[against] for point in known],
        [point.score.mean for point in known],
        yerr=[point.score.error if isfinite(point.score.error) else 0.0 for point in known],
        label=mixer,
        color=colour,
        linestyle=dash,
        marker=marker,
        markersize=4.5,
        linewidth=1.5,
        elinewidth=1,
        capsize=2.5,
        zorder=3,
    )


def _across(panels: Sequence[Axes], sizes: Sequence[float]) -> None:
    positive = [size for size in sizes if size > 0]
    for axes in panels if positive else ():
        axes.set_xscale("log", base=2)
        marked = ticks(positive, unit="bytes", log=True, most=5)
        axes.xaxis.set_major_locator(FixedLocator(list(marked)))
        axes.xaxis.set_major_formatter(FixedFormatter(list(marked.values())))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


def write_csv(found: Sweep, path: str) -> None:
    """Writes every point to `path`; raises `ArchsearchError` where it cannot be written."""
    with writing(path):
        Path(path).write_bytes(csv_bytes(found.frame()))
