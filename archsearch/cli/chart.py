"""Charts for a terminal: a numbered scatter and a curve, as plain text without colour; what rises is the title.

A console whose encoding has no lines and blocks gets both in ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import plotext

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, LEAST_WIDTH, HEIGHT = 78, 40, 20
_LINES = str.maketrans(dict.fromkeys("┌┐└┘├┤┬┴┼", "+") | {"─": "-", "│": "|"})


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: its label, and the values that get a tick by what is written there (none: left to the chart)."""

    label: str
    ticks: Mapping[float, str] | None = None
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands on the axis."""
        return math.log10(value) if self.log else value


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What is drawn on: so many columns, and whether they take ASCII alone."""

    columns: int = WIDTH
    ascii_only: bool = False

    @classmethod
    def of(cls, console: Console) -> Self:
        """What `console` offers."""
        columns = min(WIDTH, max(LEAST_WIDTH, console.width))
        return cls(columns=columns, ascii_only=console.options.ascii_only)

    @property
    def dominated(self) -> str:
        """The mark of what is dominated: it should catch the eye least."""
        return "." if self.ascii_only else "·"


Points = Sequence[tuple[float, float]]


def scatter(front: Points, marked: Mapping[str, Points], x: Axis, y: Axis, paper: Paper) -> str:
    """The front's points by their numbers, from 1, and groups of others by one character each."""
    figure = _figure(x, y, paper)
    for marker, points in marked.items():
        if points:
            figure.draw(figure.signal(*_places(points, x, y), marker=marker))
    for number, place in enumerate(zip(*_places(front, x, y), strict=True), start=1):
        figure.draw(figure.text(*place, str(number), alignment="center"))
    _frame(figure, x, y, [*front, *(point for points in marked.values() for point in points)])
    return _text(figure, paper)


def curve(points: Points, x: Axis, y: Axis, paper: Paper) -> str:
    """A line through the points."""
    figure = _figure(x, y, paper)
    line = figure.signal(*_places(points, x, y), marker="*" if paper.ascii_only else "hd")
    line.lines()
    figure.draw(line)
    _frame(figure, x, y, points)
    return _text(figure, paper)


def _figure(x: Axis, y: Axis, paper: Paper) -> plotext.figure:
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(paper.columns, HEIGHT)
    figure.title(y.label)
    figure.label(x.label, "x")
    return figure


def _places(points: Points, x: Axis, y: Axis) -> tuple[list[float], list[float]]:
    return [x.place(left) for left, _ in points], [y.place(right) for _, right in points]


def _frame(figure: plotext.figure, x: Axis, y: Axis, points: Points) -> None:
    for name, axis, places in zip("xy", (x, y), _places(points, x, y), strict=True):
        low, high = min(places), max(places)
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        ruler = figure.ruler(name)
        ruler.lim(low - margin, high + margin)
        if axis.ticks:
            ruler.ticks([axis.place(value) for value in axis.ticks], list(axis.ticks.values()))


def _text(figure: plotext.figure, paper: Paper) -> str:
    text: str = figure.build().string(colorless=True)
    figure.clear()
    text = "\n".join(line.rstrip() for line in text.rstrip().splitlines())
    return text.translate(_LINES) if paper.ascii_only else text
