"""Figures of a ladder: places from rung to rung, agreement with its bounds, and laws of loss against FLOPs."""

from __future__ import annotations

from itertools import cycle, pairwise

import pandas as pd
import plotly.graph_objects as go

from ..colours import BLUE, GREEN, GREY, VERMILLION
from .costs import SERIES
from .frame import INK, blank, escaped, scale

ROSE, FELL = GREEN, VERMILLION
LABEL = 44
"""Characters of a pattern beside its line."""

ROW = 34


def bump_chart(places: pd.DataFrame, sizes: dict[int, str], metric: str) -> go.Figure:
    """Each architecture as a line over its places, the best on top, from rung to rung.

    `places` has the columns of `queries.ladder.PLACES`, `sizes` the words below each rung. A step is of the colour of
    what rose or fell by more than noise, and else grey.
    """
    most = int(places["place"].max())
    figure = blank(height=110 + ROW * max(4, len(places["key"].unique())))
    for colour, name in ((ROSE, "rose"), (FELL, "fell"), (GREY, "stayed, or within noise")):
        line = {"color": colour, "width": 3}
        figure.add_trace(go.Scatter(name=name, x=[None], y=[None], mode="lines", line=line))
    for _, rows in places.groupby("key", sort=False):
        _line(figure, rows.sort_values("rung"), metric)
    last = places.sort_values("rung").groupby("key", sort=False).tail(1)
    for (rung, place), rows in last.groupby(["rung", "place"]):
        patterns = " = ".join(_short(pattern) for pattern in rows["pattern"][:2])
        more = f" and {len(rows) - 2} more" if len(rows) > 2 else ""
        figure.add_annotation(
            x=rung, y=place, text=f"{patterns}{more}", xanchor="left", xshift=10, showarrow=False, font={"size": 12}
        )
    numbers = sorted(places["rung"].unique())
    figure.update_xaxes(
        tickvals=numbers,
        ticktext=[f"rung {number}<br>{escaped(sizes.get(int(number), ''))}" for number in numbers],
        range=[min(numbers) - 0.15, max(numbers) + 0.55 * max(1, len(numbers) - 1)],
    )
    figure.update_yaxes(
        title=f"place in {escaped(metric)}", range=[most + 0.6, 0.4], dtick=max(1, most // 10), showgrid=False
    )
    return figure


def _short(pattern: object) -> str:
    text = str(pattern)
    return escaped(text if len(text) <= LABEL else f"{text[: LABEL - 1]}…")


def _line(figure: go.Figure, rows: pd.DataFrame, metric: str) -> None:
    records = rows.to_dict("records")
    for before, after in pairwise(records):
        colour = {"rose": ROSE, "fell": FELL}.get(str(after["move"]), GREY)
        figure.add_trace(
            go.Scatter(
                x=[before["rung"], after["rung"]],
                y=[before["place"], after["place"]],
                mode="lines",
                line={"color": colour, "width": 3},
                showlegend=False,
                hoverinfo="skip",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[row["rung"] for row in records],
            y=[row["place"] for row in records],
            mode="markers",
            marker={"size": 11, "color": BLUE},
            showlegend=False,
            hoverinfo="text",
            hovertext=[
                f"{escaped(row['pattern'])}<br>rung {row['rung']}, place {row['place']}<br>{escaped(metric)} "
                f"{row['score']:.4f} ({row['low']:.4f} to {row['high']:.4f} over seeds)"
                + (f"<br>{row['move']}" if row["move"] else "")
                for row in records
            ],
        )
    )


def agreement_dots(agreement: pd.DataFrame) -> go.Figure:
    """Rank correlation with its bounds, a line a step and metric; columns of `queries.ladder.agreement_table`."""
    known = agreement.dropna(subset=["tau"])
    labels = [f"{escaped(metric)}, rung {rungs}" for metric, rungs in zip(known["metric"], known["rungs"], strict=True)]
    figure = blank(height=90 + 34 * max(1, len(known)), legend=False)
    figure.add_trace(
        go.Scatter(
            x=known["tau"],
            y=labels,
            mode="markers",
            marker={"size": 12, "color": BLUE},
            error_x={
                "array": known["95% to"] - known["tau"],
                "arrayminus": known["tau"] - known["95% from"],
                "symmetric": False,
                "color": INK,
                "thickness": 2,
            },
            hoverinfo="text",
            hovertext=[escaped(text) for text in known["in words"]],
        )
    )
    figure.add_vline(x=0, line={"color": INK, "dash": "dash", "width": 1.5})
    figure.update_xaxes(title="Kendall's tau: 1 the same order, 0 no agreement, -1 turned", range=[-1.05, 1.05])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def law_figure(points: pd.DataFrame, curves: pd.DataFrame, loss: str) -> go.Figure:
    """Loss against training FLOPs: means with errors, fitted laws, dotted where nothing checks them, dashed beyond what
    was measured, and their bands."""
    figure = blank(height=460)
    for (pattern, curve), (colour, _, symbol) in zip(
        curves.groupby("pattern", sort=False), cycle(SERIES), strict=False
    ):
        mine = points[points["pattern"] == pattern]
        if curve["low"].notna().all():
            _band(figure, curve, colour, str(pattern))
        within = "solid" if curve["checked"].all() else "dot"
        for measured, dash in ((True, within), (False, "dash")):
            part = curve[curve["measured"]] if measured else curve[curve["flops"] >= mine["flops"].max()]
            line = {"color": colour, "dash": dash, "width": 2.5}
            figure.add_trace(
                go.Scatter(
                    x=part["flops"],
                    y=part["loss"],
                    mode="lines",
                    line=line,
                    legendgroup=str(pattern),
                    showlegend=False,
                    hoverinfo="skip",
                )
            )
        figure.add_trace(
            go.Scatter(
                name=_short(pattern),
                x=mine["flops"],
                y=mine["loss"],
                mode="markers",
                marker={"size": 11, "color": colour, "symbol": symbol},
                error_y={"array": mine["error"].fillna(0.0), "color": colour},
                legendgroup=str(pattern),
                hoverinfo="text",
                hovertext=[
                    f"{escaped(pattern)}<br>{flops:.3g} training FLOPs: {value:.4f}"
                    for flops, value in zip(mine["flops"], mine["loss"], strict=True)
                ],
            )
        )
    sizes = scale(curves["flops"].tolist(), unit="FLOP", log=True)
    figure.update_xaxes(
        title="training FLOPs of one run (dotted: three sizes cannot speak against a law; dashed: extrapolated)",
        **sizes,
    )
    figure.update_yaxes(title=escaped(loss), type="log" if _above_zero(curves) else "linear")
    return figure


def _above_zero(curves: pd.DataFrame) -> bool:
    """Whether curves and their bands can stand on a logarithmic axis."""
    return bool((curves[["loss", "low"]].min(axis=1) > 0).all())


def _band(figure: go.Figure, curve: pd.DataFrame, colour: str, group: str) -> None:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    figure.add_trace(
        go.Scatter(
            x=[*curve["flops"], *curve["flops"][::-1]],
            y=[*curve["high"], *curve["low"][::-1]],
            fill="toself",
            fillcolor=f"rgba({red}, {green}, {blue}, 0.15)",
            line={"width": 0},
            mode="lines",
            legendgroup=group,
            showlegend=False,
            hoverinfo="skip",
        )
    )
