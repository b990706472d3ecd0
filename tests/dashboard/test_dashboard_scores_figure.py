"""The figures of scores: bars and seeds over tasks, each with its own chance level."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from archsearch_dashboard.figures.scores import score_bars, seed_points

NAN = float("nan")
CHANCE = {"niah (accuracy)": 0.5, "mqar (accuracy)": 0.1}


def scores(*means: float) -> pd.DataFrame:
    rows = [
        (label.partition(" ")[0], "accuracy", mean, mean, mean, 2, chance)
        for (label, chance), mean in zip(CHANCE.items(), means, strict=True)
    ]
    return pd.DataFrame(rows, columns=["task", "metric", "mean", "low", "high", "seeds", "chance"])


def chance_by_task(figure: go.Figure) -> dict[str, float]:
    """The level of the line over each task, by the axis's order."""
    places = figure.layout.xaxis.categoryarray
    return {places[round((line.x0 + line.x1) / 2)]: line.y0 for line in figure.layout.shapes}


def test_each_task_keeps_its_chance_where_the_first_architecture_has_no_score() -> None:
    figure = score_bars([("1", scores(NAN, 0.9)), ("2", scores(0.8, 0.7))])
    assert figure.data[0].x == ("mqar (accuracy)",)
    assert chance_by_task(figure) == CHANCE


def test_each_task_keeps_its_chance_where_a_task_has_no_seed() -> None:
    assert chance_by_task(seed_points(scores(NAN, 0.9).assign(seed=0).rename(columns={"mean": "test"}))) == CHANCE
