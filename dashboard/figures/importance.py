"""Importance and effects: bars with their errors, and what luck alone would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pandas as pd
import plotly.graph_objects as go

from archsearch.units import format_quantity

from ..colours import BETWEEN, BLUE, SKY, VERMILLION
from .frame import CLEAR, FAINT, INK, blank, escaped, scale

HALOED = "#222222"
"""Text that plotly draws with a white halo on any ground."""

SHOWN = 15
"""Choices that are drawn; the table has all."""


class Axis(Protocol):
    """One axis of parallel coordinates: values `[n]` as they are placed, and what is written where."""

    @property
    def label(self) -> str: ...

    @property
    def values(self) -> Sequence[float]: ...

    @property
    def marks(self) -> Mapping[float, str]: ...


def importance_bars(table: pd.DataFrame) -> go.Figure:
    """The most important choices with the error of each, and the mark that chance would reach."""
    rows = table.head(SHOWN).iloc[::-1]
    figure = blank(height=90 + 26 * len(rows))
    names = [escaped(name) for name in rows["choice"]]
    figure.add_trace(
        go.Bar(
            name="importance, with its standard error",
            orientation="h",
            y=names,
            x=rows["importance"],
            error_x={"array": rows["error"], "color": INK, "thickness": 1.5},
            marker={"color": BLUE, "opacity": [1.0 if clear else 0.4 for clear in rows["clear"]]},
            hovertext=[
                f"{name}<br>{value:.1%} ± {error:.1%} of the importance<br>chance reaches {chance:.1%}"
                for name, value, error, chance in zip(
                    names, rows["importance"], rows["error"], rows["chance"], strict=True
                )
            ],
            hoverinfo="text",
        )
    )
    figure.add_trace(
        go.Scatter(
            name="what chance reaches (1 in 20)",
            y=names,
            x=rows["chance"],
            mode="markers",
            hoverinfo="skip",
            marker={"symbol": "line-ns", "size": 15, "line": {"color": VERMILLION, "width": 3}},
        )
    )
    figure.update_xaxes(title="share of all importance", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(showgrid=False)
    return figure


def level_means(levels: pd.DataFrame, *, title: str, unit: str, colour: str, across: str) -> go.Figure:
    """The mean of each level with its standard error, and how many candidates each has, in the order of the levels."""
    figure = blank(height=300, legend=False)
    named = [escaped(level) for level in levels["level"]]
    counted = [f"{name}<br>n = {count:,}" for name, count in zip(named, levels["candidates"], strict=True)]
    errors = levels["error"].fillna(0.0)
    figure.add_trace(
        go.Scatter(
            x=named,
            y=levels["mean"],
            mode="markers+lines",
            marker={"size": 11, "color": colour},
            line={"color": FAINT},
            hoverinfo="text",
            error_y={"array": errors, "color": INK, "thickness": 1.5},
            hovertext=[
                f"{name}<br>{escaped(format_quantity(mean, unit=unit))}"
                + (f" ± {escaped(format_quantity(error, unit=unit))}" if error == error else "")
                + f"<br>{count:,} candidates"
                for name, mean, error, count in zip(
                    named, levels["mean"], levels["error"], levels["candidates"], strict=True
                )
            ],
        )
    )
    figure.update_xaxes(type="category", title=escaped(across), showgrid=False, tickvals=named, ticktext=counted)
    reach = [*(levels["mean"] - errors), *(levels["mean"] + errors)]
    figure.update_yaxes(title=escaped(title), **(scale(reach, unit=unit, log=False) if unit else {}))
    return figure


def parallel(axes: Sequence[Axis], coloured: str) -> go.Figure:
    """Candidates as lines over `axes`, coloured by the values on the one of the label `coloured`."""
    figure = blank(height=440, legend=False)
    marked = next(axis for axis in axes if axis.label == coloured)
    bar = {
        "title": {"text": escaped(coloured), "side": "right"},
        "thickness": 14,
        "tickvals": list(marked.marks),
        "ticktext": [escaped(text) for text in marked.marks.values()],
    }
    figure.add_trace(
        go.Parcoords(
            dimensions=[
                {
                    "label": escaped(axis.label),
                    "values": axis.values,
                    "tickvals": list(axis.marks),
                    "ticktext": [escaped(text) for text in axis.marks.values()],
                }
                for axis in axes
            ],
            line={"color": marked.values, "colorscale": [SKY, BETWEEN, VERMILLION], "showscale": True, "colorbar": bar},
            labelfont={"color": INK, "size": 13},
            tickfont={"color": HALOED, "size": 12},
            rangefont={"color": CLEAR},
        )
    )
    figure.update_layout(margin={"l": 70, "r": 40, "t": 50, "b": 24})
    return figure
