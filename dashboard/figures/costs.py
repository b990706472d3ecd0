"""Costs against context: curves of whole architectures with the points where they cross, and curves of mixers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from archsearch.analysis.crossings import Crossing
from archsearch.units import format_quantity

from ..colours import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
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
    curves: pd.DataFrame, measure: str, *, title: str, unit: str, crossings: Sequence[Crossing] = ()
) -> go.Figure:
    """One measure of several architectures (column ``arch``) against ``context``, both axes logarithmic.

    What is zero, such as the KV bytes of a linear layer, has no place on such an axis: the legend says so.
    """
    figure = blank(height=420)
    for index, (name, curve) in enumerate(curves.groupby("arch", sort=False)):
        colour, dash, _ = SERIES[index % len(SERIES)]
        positive = curve[curve[measure] > 0]
        label = escaped(name) + ("" if len(positive) else " (zero)")
        figure.add_trace(
            go.Scatter(
                name=label,
                x=positive["context"],
                y=positive[measure],
                mode="lines",
                line={"color": colour, "dash": dash, "width": 2.5},
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
