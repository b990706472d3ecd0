"""Picture: a front drawn with matplotlib, with everything that must be known to read it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter
from matplotlib.transforms import Bbox

from archsearch.analysis.answer import marks
from archsearch.analysis.axes import axis_label, spans_decades, ticks
from archsearch.errors import ArchsearchError

if TYPE_CHECKING:
    from pandas import DataFrame

    from archsearch.analysis.answer import Answer
    from archsearch.analysis.objectives import Objective

WIDTH_INCHES, PLOT_INCHES, LINE_INCHES = 9.0, 5.4, 0.15
_KEY_COLUMNS = 126
Rows = Sequence[dict[Any, Any]]
_INK, _FRONT, _REFERENCE, _FAINT = "#222222", "#1f5fa8", "#b4541a", "#b9bec6"
_OFFSETS = [
    (dx, dy) for radius in (9, 15, 24, 36) for dx, dy in product((radius, 0, -radius), repeat=2) if (dx, dy) != (0, 0)
]


def write_picture(answer: Answer, x: Objective, y: Objective, path: str | Path) -> None:
    """Writes the front over two objectives to `path`, in the format of its suffix.

    Raises `ArchsearchError` when there is nothing to draw, or the file cannot be written.
    """
    groups = [
        _drawable(rows, x, y) for rows in (answer.front, answer.references, answer.dominated, answer.not_exercised)
    ]
    front, references = groups[:2]
    if not front and not references:
        raise ArchsearchError(f"there is nothing to draw: {answer.why_no_front()}")
    key = _key(answer, front, references)
    below = 0.12 + LINE_INCHES * len(key) + 1.1
    height = PLOT_INCHES + below
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, below / height, 0.89, 1 - (below + 0.85) / height))
    _draw_points(axes, groups, x, y, chance=answer.chance(y), steps=len(answer.objectives) == 2)
    _set_axes(axes, x, y, [row for group in groups for row in group])
    _titles(figure, answer, height)
    figure.legend(
        loc="lower left",
        bbox_to_anchor=(0.02, (0.2 + LINE_INCHES * len(key)) / height),
        ncols=4,
        fontsize=8,
        frameon=False,
        columnspacing=1.6,
        handletextpad=0.5,
    )
    _label_points(figure, axes, front, references, x, y)
    figure.text(
        0.02, 0.12 / height, "\n".join(key), fontsize=8, family="monospace", va="bottom", color=_INK, linespacing=1.35
    )
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ArchsearchError(f"cannot write the picture {path}: {error}: name another file, as front.png") from None


def _drawable(rows: DataFrame, x: Objective, y: Objective) -> Rows:
    return list(rows.dropna(subset=[x.name, y.name]).to_dict("records"))


def _draw_points(
    axes: Axes, groups: Sequence[Rows], x: Objective, y: Objective, *, chance: float | None, steps: bool
) -> None:
    front, references, dominated, not_exercised = groups
    if chance is not None:
        axes.axhline(chance, color=_FAINT, linewidth=1, linestyle=(0, (1, 2)), zorder=1, label=f"chance ({chance:.3g})")
    _scatter(axes, dominated, x, y, _Mark("o", _FAINT, 18, "dominated"))
    _scatter(axes, not_exercised, x, y, _Mark("X", _FAINT, 22, "sparsity not exercised"))
    if steps and len(front) > 1:
        ordered = sorted(front, key=lambda row: float(row[x.name]))
        where = "steps-post" if x.direction == "minimize" else "steps-pre"
        axes.plot(
            [row[x.name] for row in ordered],
            [row[y.name] for row in ordered],
            drawstyle=where,
            color=_FRONT,
            linewidth=1,
            alpha=0.35,
            zorder=2,
        )
    for reference, marker, name in ((False, "o", "front"), (True, "D", "front, reference")):
        for confirmed, label in ((True, f"{name}, confirmed"), (False, f"{name}, unconfirmed")):
            rows = [
                row for row in front if (row["kind"] == "reference", bool(row["confirmed"])) == (reference, confirmed)
            ]
            _scatter(axes, rows, x, y, _Mark(marker, _FRONT, 46, label, filled=confirmed))
    within = [row for row in references if row["feasible"]]
    beyond = [row for row in references if not row["feasible"]]
    _scatter(axes, within, x, y, _Mark("D", _REFERENCE, 34, "reference"))
    _scatter(axes, beyond, x, y, _Mark("D", _REFERENCE, 34, "reference, over budget", filled=False))


@dataclass(frozen=True)
class _Mark:
    """How points are drawn, and what the legend calls them."""

    marker: str
    color: str
    size: int
    label: str
    filled: bool = True


def _scatter(axes: Axes, rows: Rows, x: Objective, y: Objective, mark: _Mark) -> None:
    if not rows:
        return
    xs, ys = [float(row[x.name]) for row in rows], [float(row[y.name]) for row in rows]
    low = [value - float(row[f"{y.name}_min"]) for value, row in zip(ys, rows, strict=True)]
    high = [float(row[f"{y.name}_max"]) - value for value, row in zip(ys, rows, strict=True)]
    if any(value > 0 for value in (*low, *high)):
        axes.errorbar(xs, ys, yerr=[low, high], fmt="none", ecolor=mark.color, elinewidth=1, capsize=2.5, zorder=3)
    face = mark.color if mark.filled else "white"
    axes.scatter(
        xs,
        ys,
        s=mark.size,
        marker=mark.marker,
        facecolor=face,
        edgecolor=mark.color,
        linewidth=1.4,
        zorder=4,
        label=mark.label,
    )


def _set_axes(axes: Axes, x: Objective, y: Objective, rows: Rows) -> None:
    for axis, set_scale, objective in ((axes.xaxis, axes.set_xscale, x), (axes.yaxis, axes.set_yscale, y)):
        values = [float(row[objective.name]) for row in rows]
        log = objective.is_cost and spans_decades(values)
        if log:
            set_scale("log")
        if objective.is_cost:
            marked = ticks(values, unit=objective.unit, log=log, most=8)
            axis.set_major_locator(FixedLocator(list(marked)))
            axis.set_major_formatter(FixedFormatter(list(marked.values())))
            axis.set_minor_formatter(NullFormatter())
        better = "less is better" if objective.direction == "minimize" else "more is better"
        axis.set_label_text(f"{axis_label(objective)}, {better}" + (", log scale" if log else ""), fontsize=9.5)
    axes.margins(x=0.08, y=0.1)
    low, high = axes.get_ylim()
    if not y.is_cost and low < 0 <= min(float(row[y.name]) for row in rows):
        axes.set_ylim(-0.02 * high, high)
    axes.tick_params(labelsize=8.5, which="both", color=_FAINT)
    axes.tick_params(which="minor", length=0)
    axes.grid(color="#e8eaee", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _titles(figure: Figure, answer: Answer, height: float) -> None:
    names = ", ".join(objective.name for objective in answer.objectives)
    seeds = sorted({len(row) for row in answer.front["seeds"]})
    counted = " or ".join(map(str, seeds))
    title = f"{answer.search.name}: front over {names}"
    figure.text(0.02, 1 - 0.28 / height, title, fontsize=12, fontweight="bold", color=_INK, va="center")
    note = (
        f"{answer.validity.sentence}; {counted} seed{'s' if seeds != [1] else ''} a point"
        if seeds
        else answer.validity.sentence
    )
    if seeds and seeds[-1] > 1:
        note += ", bars from the least to the greatest"
    figure.text(0.02, 1 - 0.47 / height, textwrap.fill(note, 138), fontsize=7.8, color="#555555", va="top")


def _key(answer: Answer, front: Rows, references: Rows) -> list[str]:
    """One entry a labelled point: number, pattern and figures, folded to the width of the picture."""
    lines: list[str] = []
    for label, row in _labelled(front, references):
        values = ", ".join(f"{item.name} {item.show(float(row[item.name]))}" for item in answer.objectives)
        text = f"{label:>3}  {row['pattern']}: {values} (trial {row['trial']}, {marks(row)})"
        lines += textwrap.wrap(text, _KEY_COLUMNS, subsequent_indent=" " * 5, break_on_hyphens=False)
    return lines


def _labelled(front: Rows, references: Rows) -> list[tuple[str, dict[Any, Any]]]:
    numbers = [(str(index), row) for index, row in enumerate(front, start=1)]
    return numbers + [(f"R{index}", row) for index, row in enumerate(references, start=1)]


def _label_points(
    figure: Figure,
    axes: Axes,
    front: Rows,
    references: Rows,
    x: Objective,
    y: Objective,
) -> None:
    """Writes each point's number beside it, where it covers neither another point nor another number."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    labelled = _labelled(front, references)
    places = [axes.transData.transform((float(row[x.name]), float(row[y.name]))) for _, row in labelled]
    taken = [Bbox.from_bounds(left - 9, low - 9, 18, 18) for left, low in places]
    scale = figure.dpi / 72
    for (label, row), (left, low) in zip(labelled, places, strict=True):
        color = _FRONT if label.isdigit() else _REFERENCE
        text = axes.annotate(
            label,
            (float(row[x.name]), float(row[y.name])),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=color,
            zorder=5,
        )
        box = text.get_window_extent(renderer)
        for dx, dy in _OFFSETS:
            moved = box.translated(dx * scale, dy * scale)
            inside = axes.bbox.contains(moved.x0, moved.y0) and axes.bbox.contains(moved.x1, moved.y1)
            if inside and not any(moved.overlaps(other) for other in taken):
                break
        text.set_position((dx, dy))
        taken.append(box.translated(dx * scale, dy * scale))
        if max(abs(dx), abs(dy)) > 20:
            axes.annotate(
                "",
                (left, low),
                xycoords="figure pixels",
                xytext=(dx * 0.75, dy * 0.75),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6},
            )
