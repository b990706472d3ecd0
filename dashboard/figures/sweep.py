"""Curves of a sweep: what is recalled against the size of the state, a panel a number of pairs, a line a mixer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite, log2

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from archsearch.analysis.axes import ticks
from archsearch.analysis.sweep import COSTS, Sweep, SweepPoint
from archsearch.units import format_quantity

from ..colours import style_of
from .costs import SERIES
from .frame import FAINT, INK, blank, escaped

COLUMNS, PANEL = 3, 300


def recall_curves(found: Sweep, against: str) -> go.Figure:
    """The curves over one of `COSTS`, log2, with standard errors; chance as a dotted line.

    A family has its colour and mark, and mixers of one family are told apart by their dashes.
    """
    columns = min(COLUMNS, len(found.pairs))
    rows = -(-len(found.pairs) // columns)
    titles = [f"{pairs} pairs" for pairs in found.pairs]
    figure = make_subplots(
        rows=rows, cols=columns, shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.24 / rows
    )
    figure.update_layout(blank(height=PANEL * rows + 90).layout)
    lines = _lines(found)
    for index, pairs in enumerate(found.pairs):
        row, column = divmod(index, columns)
        for mixer in found.mixers:
            trace = _line(found.curve(mixer, pairs, against), mixer, lines[mixer], against)
            trace.update(showlegend=index == 0)
            figure.add_trace(trace, row=row + 1, col=column + 1)
        chance = next(point.chance for point in found.points if point.pairs == pairs)
        figure.add_hline(y=chance, line={"color": INK, "dash": "dot", "width": 1}, row=row + 1, col=column + 1)
    _axes(figure, found, against)
    return figure


def _lines(found: Sweep) -> Mapping[str, dict[str, str]]:
    made, held = {}, Counter[str]()
    for mixer in found.mixers:
        family = next(point.family for point in found.points if point.mixer == mixer)
        style = style_of(family)
        made[mixer] = {"color": style.colour, "symbol": style.symbol, "dash": SERIES[held[family] % len(SERIES)][1]}
        held[family] += 1
    return made


def _line(points: list[SweepPoint], mixer: str, style: Mapping[str, str], against: str) -> go.Scatter:
    known = [point for point in points if isfinite(point.score.mean) and point.costs[against] > 0]
    return go.Scatter(
        name=escaped(mixer),
        legendgroup=mixer,
        x=[point.costs[against] for point in known],
        y=[point.score.mean for point in known],
        error_y={
            "array": [point.score.error if isfinite(point.score.error) else 0.0 for point in known],
            "color": style["color"],
            "thickness": 1.2,
            "width": 3,
        },
        mode="lines+markers",
        line={"color": style["color"], "dash": style["dash"], "width": 2},
        marker={"color": style["color"], "symbol": style["symbol"], "size": 8},
        hoverinfo="text",
        hovertext=[_hover(point, against) for point in known],
    )


def _hover(point: SweepPoint, against: str) -> str:
    score = point.score
    error = f" ± {score.error:.3f}" if isfinite(score.error) else ""
    return (
        f"{escaped(point.layer)}, d_model {point.d_model}<br>{point.pairs} pairs: {escaped(score.metric)} "
        f"{score.mean:.3f}{error} ({len(score.values)} seeds)<br>{COSTS[against]} "
        f"{format_quantity(point.costs[against], unit='bytes')} at {point.seq_len:,} tokens"
    )


def _axes(figure: go.Figure, found: Sweep, against: str) -> None:
    sizes = [point.costs[against] for point in found.points if point.costs[against] > 0]
    figure.update_yaxes(range=[-0.04, 1.06], automargin=True, zeroline=False, gridcolor=FAINT, linecolor=FAINT)
    figure.update_yaxes(title=f"{escaped(found.points[0].score.metric)} on test", col=1)
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor=FAINT, linecolor=FAINT)
    if sizes:
        marked = ticks(sizes, unit="bytes", log=True, most=5)
        ends = [(log2(min(sizes)) - 0.4) / log2(10), (log2(max(sizes)) + 0.4) / log2(10)]
        figure.update_xaxes(
            type="log",
            tickvals=list(marked),
            ticktext=list(marked.values()),
            range=ends,
            title=f"{COSTS[against]} at the task's length",
        )
    figure.update_layout(margin={"t": 64}, legend={"y": 1.0 + 34 / figure.layout.height})
