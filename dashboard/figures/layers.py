"""Layers: the pattern of an architecture as a strip of cells, and what each layer costs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from archsearch.units import format_quantity

from ..colours import style_of
from .frame import CLEAR, INK, blank, escaped, scale

WIDE = 24
"""Up to this many layers a cell holds the mixer's name, beyond only its family's letter."""


def strip(rows: Sequence[tuple[str, pd.DataFrame]]) -> go.Figure:
    """Architectures under each other, a cell a layer in its family's colour, those that differ from the first framed.

    Each row is a label and a frame with the columns ``layer``, ``mixer``, ``family``, ``text`` (the layer in the
    notation), ``options`` and, beside others, ``differs``.
    """
    figure = blank(height=96 + 42 * len(rows))
    depth = max((len(layers) for _, layers in rows), default=0)
    for family in dict.fromkeys(name for _, layers in rows for name in layers["family"]):
        figure.add_trace(_cells(family, rows, narrow=depth > WIDE))
    if any(_differs(layers) for _, layers in rows):
        figure.add_trace(_frames(rows))
    figure.update_layout(barmode="overlay", bargap=0.0, legend={"itemclick": False, "itemdoubleclick": False})
    labels = [str(index) for index in range(len(rows))]
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=labels[::-1],
        tickvals=labels,
        showgrid=False,
        ticktext=[escaped(label) for label, _ in rows],
        range=[-0.6, len(rows) - 0.4],
    )
    every = max(1, -(-depth // 24))
    places = list(range(0, depth, every))
    figure.update_xaxes(
        range=[-0.5, depth - 0.5],
        showgrid=False,
        tickvals=places,
        ticktext=[str(place + 1) for place in places],
        title="layer, the first on the left",
    )
    return figure


def _cells(family: str, rows: Sequence[tuple[str, pd.DataFrame]], *, narrow: bool) -> go.Bar:
    """The cells of one family in all rows: bars of width 1 that begin where their layer does."""
    style = style_of(family)
    mine = [
        (str(row), cell)
        for row, (_, layers) in enumerate(rows)
        for cell in layers[layers["family"] == family].to_dict("records")
    ]
    return go.Bar(
        name=escaped(family),
        orientation="h",
        y=[row for row, _ in mine],
        x=[0.94] * len(mine),
        base=[cell["layer"] - 0.47 for _, cell in mine],
        width=0.8,
        marker={"color": style.colour, "line": {"width": 0}},
        text=[style.letter if narrow else escaped(cell["name"]) for _, cell in mine],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": style.ink, "size": 13},
        constraintext="inside",
        hovertext=[_hover(cell) for _, cell in mine],
        hoverinfo="text",
    )


def _differs(layers: pd.DataFrame) -> list[int]:
    """The layers that differ from the first architecture's."""
    return layers.loc[layers["differs"], "layer"].tolist() if "differs" in layers else []


def _frames(rows: Sequence[tuple[str, pd.DataFrame]]) -> go.Bar:
    """A frame about each cell that differs, with a place of its own in the legend."""
    mine = [(str(row), layer) for row, (_, layers) in enumerate(rows) for layer in _differs(layers)]
    return go.Bar(
        name="differs from the first",
        orientation="h",
        y=[row for row, _ in mine],
        x=[0.94] * len(mine),
        base=[layer - 0.47 for _, layer in mine],
        width=0.8,
        hoverinfo="skip",
        marker={"color": CLEAR, "line": {"color": INK, "width": 4}},
    )


def _hover(cell: Mapping[Hashable, object]) -> str:
    lines = [f"<b>layer {int(str(cell['layer'])) + 1}: {escaped(cell['mixer'])}</b> ({escaped(cell['family'])})"]
    if cell.get("differs"):
        lines.append("differs from the first")
    lines += [escaped(part) for part in str(cell["options"]).split(", ") if part]
    return "<br>".join(lines)


def layer_costs(layers: pd.DataFrame, costs: pd.DataFrame, measure: str, *, title: str, unit: str) -> go.Figure:
    """What each layer costs, as bars in its family's colour; `costs` has a row a layer and a column `measure`."""
    figure = blank(height=280)
    for family in dict.fromkeys(layers["family"]):
        mine = layers["family"] == family
        values = costs.loc[mine, measure]
        style = style_of(family)
        figure.add_trace(
            go.Bar(
                name=escaped(family),
                x=layers.loc[mine, "layer"] + 1,
                y=values,
                marker={"color": style.colour},
                text=[style.letter] * len(values),
                textposition="inside",
                textfont={"color": style.ink},
                hovertext=[
                    f"layer {layer + 1}: {escaped(text)}<br>{format_quantity(float(value), unit=unit)}"
                    for layer, text, value in zip(
                        layers.loc[mine, "layer"], layers.loc[mine, "text"], values, strict=True
                    )
                ],
                hoverinfo="text",
            )
        )
    figure.update_layout(bargap=0.15, legend={"itemclick": False, "itemdoubleclick": False})
    figure.update_xaxes(title="layer", dtick=1 if len(layers) <= 24 else None, showgrid=False)
    figure.update_yaxes(title=title, **scale([0.0, *costs[measure]], unit=unit, log=False), rangemode="tozero")
    return figure
