"""The figure of a front: candidates over two objectives, a third as colour, with references, budgets and seeds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from archsearch.analysis.answer import Answer, marks
from archsearch.analysis.axes import axis_label, spans_decades, ticks
from archsearch.analysis.objectives import Objective

from ..colours import BETWEEN, BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION
from ..queries.candidates import groups, value_text
from ..text import shortened
from .frame import escaped

HEIGHT = 560
MOST_FAINT, MOST_NUMBERS = 250, 40
_FAINT = "rgba(140,140,140,0.45)"
_MARKS = {
    "dominated": ("circle", _FAINT, 6),
    "pruned": ("line-ew-open", SKY, 10),
    "not exercised": ("x-thin-open", GREY, 8),
    "infeasible": ("line-ns-open", VERMILLION, 10),
    "failed": ("cross-thin-open", GREY, 9),
    "superseded": ("hourglass-open", ORANGE, 9),
}
"""Symbol, colour and size of the groups beside the front; those without a value stand on the lower edge."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What is drawn: ``x`` across, ``y`` upwards, ``z`` as colour; the groups of `candidates.SHOWN` beside the front;
    ``log`` holds "x" and "y"; ``limits`` are lines by objective and label; ``best`` is the trial that is ringed."""

    x: Objective
    y: Objective
    z: Objective | None = None
    show: Collection[str] = ("dominated", "references")
    log: Collection[str] = ()
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    best: int | None = None


def default_log(answer: Answer, objective: Objective) -> bool:
    """Whether an objective wants a logarithmic axis."""
    values = answer.points[objective.name].dropna().tolist()
    return objective.is_cost and spans_decades(values)


def front_figure(answer: Answer, view: View) -> go.Figure:
    """The front; every point carries its trial as customdata."""
    figure = go.Figure()
    beside = {name: rows for name, rows in groups(answer).items() if name in view.show and len(rows)}
    floor = _floor([answer.front, *beside.values()], view)
    for name in _MARKS:
        if name in beside:
            figure.add_trace(_faint(beside[name], name, view, floor))
    if (chance := answer.chance(view.y)) is not None:
        _add_line(figure, view, "y", chance, f"chance {chance:.3g}", GREY, "dot")
    _add_stairs(figure, answer.front, view)
    _add_points(figure, answer.front, "front", "circle", BLUE, view, numbered=True)
    if "references" in beside:
        _add_points(figure, beside["references"], "reference", "diamond", VERMILLION, view, numbered=False)
    _add_best(figure, answer, view)
    _add_limits(figure, view)
    _lay_out(figure, answer, view, [answer.front, *beside.values()])
    return figure


def off_scale(answer: Answer, view: View) -> int:
    """How many of the candidates that are shown have no place on a logarithmic axis, as they are not above zero."""
    rows = pd.concat([answer.front, *(found for name, found in groups(answer).items() if name in view.show)])
    names = [item.name for axis, item in (("x", view.x), ("y", view.y)) if axis in view.log]
    return int((rows[names] <= 0).any(axis=1).sum())


def thinned(rows: pd.DataFrame, most: int = MOST_FAINT) -> pd.DataFrame:
    """At most `most` of `rows`, evenly chosen."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, most).astype(int)]


def _floor(drawn: Sequence[pd.DataFrame], view: View) -> float:
    """The height at which candidates without a value stand: just below all others."""
    found = pd.concat([rows[view.y.name] for rows in drawn]).astype(float).dropna()
    if not len(found):
        return 1.0 if "y" in view.log else 0.0
    low, high = float(found.min()), float(found.max())
    if "y" in view.log and low > 0:
        return low / float(max(1.3, (high / low) ** 0.06))
    return low - 0.06 * ((high - low) or abs(high) or 1.0)


def _faint(rows: pd.DataFrame, name: str, view: View, floor: float) -> go.Scatter:
    symbol, colour, size = _MARKS[name]
    drawn = thinned(rows[rows[view.x.name].notna()])
    label = name if len(drawn) == len(rows) else f"{name} ({len(drawn):,} of {len(rows):,} drawn)"
    marker = {"symbol": symbol, "color": colour, "size": size, "line": {"color": colour, "width": 1.5}}
    return go.Scatter(
        x=drawn[view.x.name],
        y=drawn[view.y.name].astype(float).fillna(floor),
        mode="markers",
        name=label,
        marker=marker,
        customdata=_custom(drawn),
        hovertext=_hover(drawn, view),
        hoverinfo="text",
    )


def _add_stairs(figure: go.Figure, front: pd.DataFrame, view: View) -> None:
    """The steps that two objectives' front makes; a front over three has none."""
    if not len(front) or view.x is view.y:
        return
    stairs = _stairs(front, view)
    figure.add_trace(
        go.Scatter(
            x=stairs[view.x.name],
            y=stairs[view.y.name],
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            line={"color": BLUE, "width": 1.2, "shape": "hv" if view.x.direction == "minimize" else "vh"},
            opacity=0.5,
        )
    )


def _stairs(front: pd.DataFrame, view: View) -> pd.DataFrame:
    """The points of the front that stay on it when the two objectives drawn are the only ones, from left to right."""
    ordered = front.dropna(subset=[view.x.name, view.y.name])
    ordered = ordered.sort_values(
        [view.x.name, view.y.name],
        ascending=[view.x.direction == "minimize", view.y.direction == "minimize"],
    )
    values = ordered[view.y.name].astype(float)
    best = values.cummin() if view.y.direction == "minimize" else values.cummax()
    kept = ordered[(values == best) & ~best.duplicated()]
    return kept.sort_values(view.x.name)


def _add_points(
    figure: go.Figure, rows: pd.DataFrame, name: str, symbol: str, colour: str, view: View, *, numbered: bool
) -> None:
    """Candidates of rank: filled when confirmed by fresh seeds, open when not."""
    numbers = [str(index) for index in range(1, len(rows) + 1)]
    for confirmed, label in ((True, f"{name}, confirmed"), (False, f"{name}, not confirmed")):
        chosen = rows["confirmed"].astype(bool) == confirmed
        drawn = rows[chosen]
        if not len(drawn):
            continue
        text = [number for number, kept in zip(numbers, chosen, strict=True) if kept] if numbered else None
        shown = text is not None and len(rows) <= MOST_NUMBERS
        marker: dict[str, Any] = {
            "symbol": symbol if confirmed else f"{symbol}-open",
            "color": colour,
            "size": 11,
            "line": {"color": colour, "width": 2},
        }
        if view.z is not None:
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=label, marker=marker))
            marker = marker | {"color": drawn[view.z.name].astype(float), "coloraxis": "coloraxis"}
        figure.add_trace(
            go.Scatter(
                x=drawn[view.x.name],
                y=drawn[view.y.name],
                mode="markers+text" if shown else "markers",
                name=label,
                showlegend=view.z is None,
                text=text if shown else None,
                textposition="top left",
                textfont={"size": 12},
                marker=marker,
                error_x=_bars(drawn, view.x, colour),
                error_y=_bars(drawn, view.y, colour),
                customdata=_custom(drawn),
                hovertext=_hover(drawn, view),
                hoverinfo="text",
                cliponaxis=False,
            )
        )


def _bars(rows: pd.DataFrame, objective: Objective, colour: str) -> dict[str, Any] | None:
    """From the least to the greatest over the seeds."""
    value = rows[objective.name].astype(float)
    low, high = value - rows[f"{objective.name}_min"], rows[f"{objective.name}_max"] - value
    if objective.is_cost or not ((low > 0) | (high > 0)).any():
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": high,
        "arrayminus": low,
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }


def _add_best(figure: go.Figure, answer: Answer, view: View) -> None:
    rows = answer.points[answer.points["trial"] == view.best]
    if len(rows):
        figure.add_trace(
            go.Scatter(
                x=rows[view.x.name],
                y=rows[view.y.name],
                mode="markers",
                name="best within my budget",
                hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 24, "color": GREEN, "line": {"color": GREEN, "width": 3}},
            )
        )


def _add_limits(figure: go.Figure, view: View) -> None:
    """Lines of the spec's budget and of the viewer's own."""
    for row, (label, limits) in enumerate(view.limits.items()):
        colour, dash = (VERMILLION, "dash") if label == "budget" else (GREEN, "longdashdot")
        for axis, objective in (("x", view.x), ("y", view.y)):
            if objective.name in limits:
                limit = limits[objective.name]
                _add_line(figure, view, axis, limit, escaped(f"{label} {objective.show(limit)}"), colour, dash, row=row)


def _add_line(
    figure: go.Figure, view: View, axis: str, value: float, text: str, colour: str, dash: str, *, row: int = 0
) -> None:
    """A line across the plot at `value` of an axis, its text on the left of it, or in a row of its own above the plot.

    Plotly places a shape by the value and a text by its logarithm.
    """
    other, end, place = "y", 1, {"xanchor": "center", "yanchor": "bottom"}
    if axis == "y":
        other, end, place = "x", 0, {"xanchor": "left", "yanchor": "bottom"}
    shape = {
        f"{axis}0": value,
        f"{axis}1": value,
        f"{axis}ref": axis,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
    }
    figure.add_shape(type="line", line={"color": colour, "width": 1.5, "dash": dash}, layer="below", **shape)
    at = math.log10(value) if axis in view.log else value
    figure.add_annotation(
        {axis: at, f"{axis}ref": axis, other: end, f"{other}ref": "paper", **place},
        text=text,
        showarrow=False,
        font={"color": colour, "size": 12},
        yshift=16 * row if axis == "x" else 0,
    )


def _lay_out(figure: go.Figure, answer: Answer, view: View, drawn: Sequence[pd.DataFrame]) -> None:
    for axis, objective in (("x", view.x), ("y", view.y)):
        log = axis in view.log
        values = pd.concat([rows[objective.name] for rows in drawn]).astype(float).dropna().tolist()
        values += [limits[objective.name] for limits in view.limits.values() if objective.name in limits]
        title = f"{escaped(axis_label(objective))}, {'less' if objective.direction == 'minimize' else 'more'} is better"
        figure.update_layout(
            {
                f"{axis}axis": {
                    "type": "log" if log else "linear",
                    "title": title + (", log scale" if log else ""),
                    "zeroline": False,
                    "showticklabels": bool(values),
                    **_ticks(values, objective, log=log),
                }
            }
        )
    if view.z is not None:
        _add_colour_axis(figure, answer, view.z)
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 10, "r": 10, "t": 44, "b": 10},
        hovermode="closest",
        clickmode="event+select",
        legend={"orientation": "h", "yanchor": "top", "y": -0.16, "x": 0},
        dragmode="pan",
        hoverlabel={"align": "left"},
    )


def _add_colour_axis(figure: go.Figure, answer: Answer, objective: Objective) -> None:
    values = answer.points[objective.name].astype(float).dropna().tolist()
    written = ticks(values, unit=objective.unit, log=False) if values else {}
    figure.update_layout(
        coloraxis={
            "colorscale": [SKY, BETWEEN, VERMILLION],
            "reversescale": objective.direction == "maximize",
            "colorbar": {
                "title": {"text": escaped(axis_label(objective)), "side": "right"},
                "tickvals": list(written),
                "ticktext": [escaped(text) for text in written.values()],
                "thickness": 14,
            },
            **({"cmin": min(values), "cmax": max(values)} if len(set(values)) > 1 else {}),
        }
    )


def _ticks(values: Sequence[float], objective: Objective, *, log: bool) -> dict[str, Any]:
    if not objective.is_cost or not values or (log and min(values) <= 0):
        return {}
    written = ticks(values, unit=objective.unit, log=log, most=8)
    return {"tickvals": list(written), "ticktext": [escaped(text) for text in written.values()]}


def _custom(rows: pd.DataFrame) -> list[list[int]]:
    return [[int(trial)] for trial in rows["trial"]]


def _hover(rows: pd.DataFrame, view: View) -> list[str]:
    """Pattern, values, seeds and marks of each point; what plotly reads as markup is escaped."""
    objectives = list({item.name: item for item in (view.y, view.x, view.z) if item is not None}.values())
    texts = []
    for row in rows.to_dict("records"):
        values = [f"{item.name} {value_text(item, row)}" for item in objectives]
        state = "" if row["state"] == "complete" else _why_off(str(row["state"]))
        seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) != 1 else ''}, {marks(row)}"
        lines = [*_wrapped(str(row["pattern"])), *values, state or seeds, f"trial {row['trial']}"]
        texts.append("<br>".join(map(escaped, lines)))
    return texts


def _why_off(state: str) -> str:
    """What the state of a candidate says of its values."""
    told = {
        "superseded": "superseded: its source has changed since",
        "pruned": "pruned: stopped before its training had ended, as others dominate it",
    }
    return told.get(state, f"{state}: not measured")


@lru_cache(maxsize=4096)
def _wrapped(pattern: str) -> tuple[str, ...]:
    """A pattern in lines; wrapping those of some hundred points is most of what a hover costs, and they come again."""
    return tuple(textwrap.wrap(shortened(pattern, 240), 60, break_on_hyphens=False))
