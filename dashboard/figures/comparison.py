"""The forest of a comparison: each architecture's difference from the baseline with its interval."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import isnan
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from archsearch.analysis.comparison_frame import BASELINE
from archsearch.analysis.scores import NOISE, UNTOLD

from ..colours import FAMILIES, GREY, style_of
from ..text import cell
from .frame import INK, blank, escaped

ROW, AROUND, MOST_NAME = 26, 110, 46


def forest(table: pd.DataFrame, metric: str, *, more_is_better: bool) -> go.Figure:
    """The rows of `queries.comparison.comparison_table` that have a difference, the best above, and the baseline at 0.

    A family has its colour and mark, which is filled where the difference is clear; what is within noise is grey.
    """
    known = table[table["difference"].notna() | (table["verdict"] == BASELINE)].reset_index(drop=True)
    figure = blank(height=AROUND + ROW * max(len(known), 2))
    places = list(range(len(known), 0, -1))
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    for family in FAMILIES:
        rows = [index for index in range(len(known)) if known["family"][index] == family]
        if rows:
            figure.add_trace(_family(known.iloc[rows], [places[index] for index in rows], family, metric))
            figure.add_trace(_legend(family))
    names = [escaped(cell(name, MOST_NAME)) for name in known["architecture"]]
    figure.update_yaxes(
        tickvals=places, ticktext=names, range=[0.4, len(known) + 0.6], showgrid=False, tickfont={"size": 12}
    )
    side = "better to the right" if more_is_better else "better to the left"
    figure.update_xaxes(title=f"difference in {escaped(metric)} from the baseline, same seeds ({side})")
    return figure


def _family(rows: pd.DataFrame, places: list[int], family: str, metric: str) -> go.Scatter:
    style = style_of(family)
    clear = [verdict not in (NOISE, UNTOLD) for verdict in rows["verdict"]]
    means = [
        0.0 if verdict == BASELINE else mean for verdict, mean in zip(rows["verdict"], rows["difference"], strict=True)
    ]
    return go.Scatter(
        name=family,
        showlegend=False,
        x=means,
        y=places,
        mode="markers",
        marker={
            "symbol": [style.symbol if told else f"{style.symbol}-open" for told in clear],
            "color": [style.colour if told else GREY for told in clear],
            "size": 10,
        },
        error_x={
            "array": _reach(rows["high"], means, 1),
            "arrayminus": _reach(rows["low"], means, -1),
            "symmetric": False,
            "color": GREY,
            "thickness": 1.5,
            "width": 4,
        },
        hoverinfo="text",
        hovertext=[_hover(row, metric) for row in rows.to_dict("records")],
    )


def _legend(family: str) -> go.Scatter:
    """The family as the legend has it, whatever its first mark looks like."""
    style = style_of(family)
    marker = {"symbol": style.symbol, "color": style.colour, "size": 10}
    return go.Scatter(name=family, x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip")


def _reach(ends: pd.Series, means: list[float], sign: int) -> list[float]:
    """How far a bar reaches from its mean; 0 where nothing bounds it."""
    return [
        0.0 if end is None or isnan(float(end)) else sign * (float(end) - mean)
        for end, mean in zip(ends, means, strict=True)
    ]


def _hover(row: Mapping[Hashable, Any], metric: str) -> str:
    lines = [escaped(row["architecture"]), f"{escaped(metric)} {_number(row['score'])} ± {_number(row['error'])}"]
    if row["verdict"] != BASELINE:
        lines.append(
            f"difference {_number(row['difference'], '+.4f')} ({_number(row['low'], '+.4f')} to "
            f"{_number(row['high'], '+.4f')})"
        )
    return "<br>".join([*lines, str(row["verdict"])])


def _number(value: object, form: str = ".4f") -> str:
    return format(value, form) if isinstance(value, float) and not isnan(value) else "unknown"
