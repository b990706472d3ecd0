"""Scores: figures by task and seed, learning curves, and the sweep over learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..colours import BLUE
from .costs import SERIES
from .frame import INK, blank, escaped


def score_bars(scores: Sequence[tuple[str, pd.DataFrame]]) -> go.Figure:
    """The score of each architecture in each task, bars over the range of its seeds; chance as a dash.

    Each frame has the columns ``task``, ``metric``, ``mean``, ``low``, ``high``, ``seeds`` and ``chance``.
    """
    figure = blank(height=340)
    for index, (name, table) in enumerate(scores):
        known = table.dropna(subset=["mean"])
        figure.add_trace(
            go.Bar(
                name=escaped(name),
                x=_task_labels(known),
                y=known["mean"],
                marker={"color": SERIES[index % 6][0]},
                error_y={
                    "array": known["high"] - known["mean"],
                    "arrayminus": known["mean"] - known["low"],
                    "symmetric": False,
                    "color": INK,
                    "thickness": 1.5,
                },
                text=[str(index + 1)] * len(known),
                textposition="inside",
                insidetextanchor="start",
                textangle=0,
                hovertext=[
                    f"{escaped(name)}<br>{label}: {mean:.3f} ({low:.3f} to {high:.3f}, {seeds} seeds)"
                    for label, mean, low, high, seeds in zip(
                        _task_labels(known), known["mean"], known["low"], known["high"], known["seeds"], strict=True
                    )
                ],
                hoverinfo="text",
            )
        )
    every = pd.concat([table for _, table in scores]).drop_duplicates("task")
    _chance(figure, every)
    figure.update_layout(bargap=0.35 if len(every) > 1 else 0.7)
    figure.update_yaxes(title="score on the test split", rangemode="tozero")
    return figure


def _task_labels(table: pd.DataFrame) -> list[str]:
    return [f"{escaped(task)} ({escaped(metric)})" for task, metric in zip(table["task"], table["metric"], strict=True)]


def learning_curves(curves: pd.DataFrame) -> go.Figure:
    """Every number that was logged against the step, a panel a number, a line a task and seed.

    Columns: ``task``, ``seed``, ``name``, ``step``, ``value``.
    """
    names = list(dict.fromkeys(curves["name"]))
    panels = make_subplots(rows=1, cols=max(len(names), 1), subplot_titles=[escaped(name) for name in names])
    panels.update_layout(blank(height=320).layout)
    for index, ((task, seed), lines) in enumerate(curves.groupby(["task", "seed"], sort=False)):
        colour, dash, _ = SERIES[index % len(SERIES)]
        for column, name in enumerate(names, start=1):
            line = lines[lines["name"] == name]
            panels.add_trace(
                go.Scatter(
                    name=f"{escaped(task)}, seed {seed}",
                    x=line["step"],
                    y=line["value"],
                    mode="lines+markers",
                    legendgroup=f"{task}/{seed}",
                    showlegend=column == 1,
                    line={"color": colour, "dash": dash},
                    marker={"size": 5},
                ),
                row=1,
                col=column,
            )
    panels.update_layout(margin={"t": 60}, legend={"y": 1.12})
    panels.update_xaxes(title="step", automargin=True, showgrid=False)
    panels.update_yaxes(automargin=True)
    return panels


def rate_sweep(sweep: pd.DataFrame, metric: str) -> go.Figure:
    """Validation against the learning rate, a line a task and seed; the rate that was chosen is filled.

    Columns: ``task``, ``seed``, ``learning_rate``, ``value``, ``chosen``. Rates that diverged have no point.
    """
    figure = blank(height=300)
    for index, ((task, seed), lines) in enumerate(sweep.groupby(["task", "seed"], sort=False)):
        colour, dash, symbol = SERIES[index % len(SERIES)]
        ordered = lines.sort_values("learning_rate")
        figure.add_trace(
            go.Scatter(
                name=f"{escaped(task)}, seed {seed}",
                x=ordered["learning_rate"],
                y=ordered["value"],
                mode="lines+markers",
                line={"color": colour, "dash": dash},
                marker={"size": 11, "symbol": [symbol if chosen else f"{symbol}-open" for chosen in ordered["chosen"]]},
            )
        )
    figure.update_xaxes(
        type="log", title="learning rate (filled: chosen)", tickvals=sorted(set(sweep["learning_rate"]))
    )
    figure.update_yaxes(title=f"{escaped(metric)} on validation")
    return figure


def seed_points(table: pd.DataFrame) -> go.Figure:
    """Each seed's score in each task, and chance; columns ``task``, ``metric``, ``seed``, ``test``, ``chance``."""
    figure = blank(height=260)
    known = table.dropna(subset=["test"])
    figure.add_trace(
        go.Scatter(
            name="a seed",
            x=_task_labels(known),
            y=known["test"],
            mode="markers",
            marker={"size": 11, "color": BLUE, "opacity": 0.7},
            hovertext=[f"seed {seed}: {value:.3f}" for seed, value in zip(known["seed"], known["test"], strict=True)],
            hoverinfo="text",
        )
    )
    _chance(figure, table.drop_duplicates("task"))
    figure.update_yaxes(title="score on the test split", rangemode="tozero")
    return figure


def _chance(figure: go.Figure, tasks: pd.DataFrame) -> None:
    """A dashed line at each task's chance level, over its place on the axis of tasks.

    The order of `tasks` is the axis's: left to itself it would be that of the scores, of which a task may have none.
    """
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=_task_labels(tasks), showgrid=False)
    for place, level in enumerate(tasks["chance"]):
        figure.add_shape(
            type="line",
            x0=place - 0.42,
            x1=place + 0.42,
            y0=level,
            y1=level,
            line={"color": INK, "dash": "dash", "width": 2},
        )
    figure.add_trace(
        go.Scatter(
            name="chance",
            x=_task_labels(tasks)[:1],
            y=[None],
            mode="lines",
            line={"color": INK, "dash": "dash", "width": 2},
            hoverinfo="skip",
        )
    )
