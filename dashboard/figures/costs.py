"""Costs against context: curves of whole architectures with the points where they cross, and curves of mixers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from archsearch.analysis.crossings import Crossing
from archsearch.units import format_quantity

from ..colours import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, style_of
from .frame import INK, blank, context_axis, escaped, scale

SERIES = (
    (BLUE, "solid", "circle"),
    (VERMILLION, "dash", "square"),
    (GREEN, "dot", "diamond"),
    (ORANGE, "dashdot", "triangle-up"),
    (PURPLE, "longdash", "cross"),
    (SKY, "longdashdot", "star"),
)
"""Colour, dash and marker of the architectures that are compared, in their order."""


def cost_curves(
    curves: pd.DataFrame,
    measure: str,
    *,
    title: str,
    unit: str,
    crossings: Sequence[Crossing] = (),
    families: Mapping[str, str] | None = None,
) -> go.Figure:
    """One measure of several architectures (column ``arch``) against ``context``, both axes logarithmic.

    With `families`, by name, each family has its colour, and those of one family are told apart by their dashes.

    What is zero, such as the KV bytes of a linear layer, has no place on such an axis: the legend says so.
    """
    figure = blank(height=420)
    lines = _lines([str(name) for name in curves["arch"].unique()], families)
    for name, curve in curves.groupby("arch", sort=False):
        positive = curve[curve[measure] > 0]
        label = escaped(name) + ("" if len(positive) else " (zero)")
        figure.add_trace(
            go.Scatter(
                name=label,
                x=positive["context"],
                y=positive[measure],
                mode="lines",
                line={**lines[str(name)], "width": 2.5},
                hoverinfo="text",
                hovertext=[
                    f"{escaped(name)}<br>{context:,} tokens: {format_quantity(float(value), unit=unit)}"
                    for context, value in zip(positive["context"], positive[measure], strict=True)
                ],
            )
        )
        if not len(positive):
            figure.data[-1].update(x=[None], y=[None])
    if crossings:
        figure.add_trace(_marks(crossings, unit))
    figure.update_xaxes(**context_axis(int(curves["context"].min()), int(curves["context"].max())))
    figure.update_yaxes(title=escaped(title), **scale(curves[measure].tolist(), unit=unit, log=True))
    return figure


def _lines(names: Sequence[str], families: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """Colour and dash of each name."""
    if families is None:
        return {name: {"color": one[0], "dash": one[1]} for name, one in zip(names, cycle(SERIES), strict=False)}
    found, held = {}, Counter[str]()
    for name in names:
        family = families[name]
        dash = SERIES[held[family] % len(SERIES)][1]
        found[name] = {"color": style_of(family).colour, "dash": dash}
        held[family] += 1
    return found


def _marks(crossings: Sequence[Crossing], unit: str) -> go.Scatter:
    return go.Scatter(
        name="crossing",
        x=[one.context for one in crossings],
        y=[one.value for one in crossings],
        mode="markers",
        marker={"symbol": "circle-open", "size": 13, "color": INK, "line": {"width": 2.5}},
        hoverinfo="text",
        hovertext=[
            f"from {one.context:,} tokens on<br>{escaped(one.dearer)}<br>costs more than<br>{escaped(one.cheaper)}"
            f"<br>{format_quantity(one.value, unit=unit)}"
            for one in crossings
        ],
    )
