"""The frame of every figure: margins, axes in people's units, and text that nothing in it can turn into HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from math import log10
from typing import Any

import plotly.graph_objects as go

from archsearch.analysis.axes import spans_decades, ticks

from ..text import cell

MOST_LABEL = 300
"""Characters of a label or of a line of a hover."""

INK = "#808080"
"""Lines and marks that stand on light and on dark alike."""

FAINT = "rgba(128, 128, 128, 0.35)"
CLEAR = "rgba(0, 0, 0, 0)"


def escaped(text: object) -> str:
    """`text` as it stands and in one line, for labels and hovers, which read some HTML."""
    return html.escape(cell(text, MOST_LABEL), quote=False)


def blank(*, height: int, legend: bool = True) -> go.Figure:
    """An empty figure: a transparent ground, little margin, and the legend above, where it hides no data."""
    figure = go.Figure()
    figure.update_layout(
        height=height,
        showlegend=legend,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        hovermode="closest",
        margin={"l": 8, "r": 8, "t": 34 if legend else 12, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0, "title": None},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridcolor=FAINT, linecolor=FAINT)
    figure.update_yaxes(automargin=True, zeroline=False, gridcolor=FAINT, linecolor=FAINT)
    return figure


def scale(values: Iterable[float], *, unit: str, log: bool | None = None, most: int = 6) -> dict[str, Any]:
    """An axis over `values` in `unit`: logarithmic where they span decades, unless told, with ticks as people read."""
    known = [value for value in values if value == value]
    positive = [value for value in known if value > 0]
    log = spans_decades(known) if log is None else log and bool(positive)
    if not known:
        return {}
    marked = ticks(positive if log else known, unit=unit, log=log, most=most)
    return {
        "type": "log" if log else "linear",
        "tickvals": list(marked),
        "ticktext": [escaped(text) for text in marked.values()],
    }


def context_axis(shortest: int, longest: int) -> dict[str, Any]:
    """A logarithmic axis of contexts in tokens, with a mark at each power of ten."""
    marks: Mapping[int, str] = {10**power: _tokens(10**power) for power in range(0, len(str(longest)) + 1)}
    return {
        "type": "log",
        "title": "context (tokens)",
        "tickvals": list(marks),
        "ticktext": list(marks.values()),
        "range": [log10(shortest) - 0.03, log10(longest) + 0.03],
    }


def _tokens(count: int) -> str:
    for size, name in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{name}"
    return str(count)
