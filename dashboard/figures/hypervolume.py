"""The figure of hypervolume over the trials of a search."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ..colours import BLUE


def hypervolume_figure(curve: pd.DataFrame) -> go.Figure:
    """`curve` as `analysis.hypervolume_over_trials` gives it, in shares of its last value."""
    last = float(curve["hypervolume"].iloc[-1]) or 1.0
    figure = go.Figure(
        go.Scatter(
            x=curve["number"],
            y=curve["hypervolume"] / last,
            mode="lines",
            fill="tozeroy",
            line={"color": BLUE, "shape": "hv"},
            hovertemplate="after trial number %{x}: %{y:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        height=320,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        xaxis={"title": "number of the candidate's first trial"},
        yaxis={"title": "hypervolume, share of the last", "tickformat": ".0%", "rangemode": "tozero"},
    )
    return figure
