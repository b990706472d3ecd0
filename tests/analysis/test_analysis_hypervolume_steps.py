"""Hypervolume at some candidates of many is the hypervolume of all of them there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from archsearch.analysis import hypervolume, hypervolume_over_trials
from archsearch.analysis.objectives import Objective

OBJECTIVES = [Objective(name="a", direction="maximize"), Objective(name="b", direction="minimize")]


@pytest.fixture
def points() -> pd.DataFrame:
    values = np.random.default_rng(0).random((100, 2))
    return pd.DataFrame(
        {
            "trial": range(1, 101),
            "number": range(100),
            "state": "complete",
            "feasible": True,
            "exercised": True,
            "a": values[:, 0],
            "b": values[:, 1],
        }
    )


@pytest.mark.parametrize("most", [1, 7, 99, 100, 1000])
def test_steps_are_rows_of_the_whole_curve(points: pd.DataFrame, most: int) -> None:
    whole = hypervolume_over_trials(points, OBJECTIVES).set_index("number")["hypervolume"]
    some = hypervolume_over_trials(points, OBJECTIVES, most=most).set_index("number")["hypervolume"]
    assert len(some) == min(most, 100)
    assert some.index[-1] == 99
    assert some.to_numpy() == pytest.approx(whole[some.index].to_numpy())
    assert some.iloc[-1] == pytest.approx(hypervolume(points, OBJECTIVES))
