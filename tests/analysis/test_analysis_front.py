"""Fronts and hypervolumes, against brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from archsearch.analysis import front, hypervolume, hypervolume_over_trials, non_dominated
from archsearch.analysis.hypervolume import reference_point, volume
from archsearch.analysis.objectives import Objective
from archsearch.errors import SpecError

OBJECTIVES = [
    Objective(name="recall", direction="maximize"),
    Objective(name="state_bytes", direction="minimize", unit="bytes"),
]


def _points(*values: tuple[float, float], **columns: list[Any]) -> pd.DataFrame:
    common = {"state": "complete", "feasible": True, "exercised": True}
    frame = pd.DataFrame(values, columns=["recall", "state_bytes"], dtype="float64").assign(**common)
    frame["trial"] = frame["number"] = np.arange(len(values))
    return frame.assign(**columns)


def _brute_force(values: np.ndarray) -> list[bool]:
    return [
        not np.isnan(row).any() and not any((other <= row).all() and (other < row).any() for other in values)
        for row in values
    ]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["real", "ties", "nan", "sphere"])
def test_non_dominated_agrees_with_brute_force(objectives: int, kind: str) -> None:
    generator = np.random.default_rng(objectives)
    values = generator.random((200, objectives))
    if kind == "ties":
        values = generator.integers(0, 4, (200, objectives)).astype(float)
    if kind == "nan":
        values[generator.random(values.shape) < 0.3] = math.nan
    if kind == "sphere":
        values = -values / np.linalg.norm(values, axis=1, keepdims=True)
    assert non_dominated(values).tolist() == _brute_force(values)


def test_non_dominated_of_nothing() -> None:
    assert non_dominated(np.zeros((0, 3))).tolist() == []
    assert non_dominated(np.full((2, 3), math.nan)).tolist() == [False, False]


def test_zero_of_either_sign_is_one_value() -> None:
    assert non_dominated(np.array([[0.0, 1.0], [-0.0, 1.0], [-0.0, 2.0]])).tolist() == [True, True, False]


def test_front_is_sorted_by_the_first_objective_that_is_minimised() -> None:
    table = front(_points((0.9, 30), (0.1, 10), (0.5, 20), (0.4, 25)), OBJECTIVES)
    assert table["state_bytes"].tolist() == [10, 20, 30]
    assert table["trial"].tolist() == [1, 2, 0]
    assert table.index.tolist() == [0, 1, 2]
    (best,) = front(_points((0.9, 1), (0.1, 1)), OBJECTIVES[:1])["recall"]
    assert best == 0.9


def test_equal_candidates_stand_together_by_trial() -> None:
    assert front(_points((0.5, 20), (0.9, 30), (0.5, 20), (0.5, 21)), OBJECTIVES)["trial"].tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    "barred",
    [{"state": "diverged"}, {"feasible": False}, {"exercised": False}, {"recall": math.nan}, {"recall": math.inf}],
    ids=str,
)
def test_what_is_not_eligible_neither_enters_nor_dominates(barred: dict[str, Any]) -> None:
    table = _points((1.0, 1), (0.5, 10), (0.4, 20))
    for column, value in barred.items():
        table[column] = [value, *table[column][1:]]
    assert front(table, OBJECTIVES)["trial"].tolist() == [1]


def test_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    table = _points(*map(tuple, generator.integers(0, 6, (40, 2))))
    expected = front(table, OBJECTIVES)["trial"].tolist()
    for seed in range(3):
        assert front(table.sample(frac=1.0, random_state=seed), OBJECTIVES)["trial"].tolist() == expected


def test_a_front_needs_an_objective() -> None:
    with pytest.raises(SpecError, match="there is no objective"):
        front(_points((1.0, 1)), [])


def _cells(values: np.ndarray, size: int) -> float:
    """The volume on a grid of whole numbers: the unit cells below `size` that some row dominates."""
    cells = itertools.product(range(size), repeat=values.shape[1])
    return float(sum((values <= cell).all(axis=1).any() for cell in cells))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 25])
def test_volume_agrees_with_counting_cells(objectives: int, count: int) -> None:
    size = 6
    generator = np.random.default_rng(count)
    for _ in range(5):
        values = generator.integers(0, size, (count, objectives)).astype(float)
        edge = np.full(objectives, float(size))
        assert volume(values, edge) == pytest.approx(_cells(values, size), rel=1e-12)


def test_volume_is_exact_for_real_numbers() -> None:
    """Inclusion and exclusion over all subsets of the points."""
    generator = np.random.default_rng(0)
    values, edge = generator.random((7, 3)), np.ones(3)
    expected = 0.0
    for size in range(1, 8):
        for chosen in itertools.combinations(values, size):
            expected -= (-1) ** size * float(np.prod(edge - np.max(chosen, axis=0)))
    assert volume(values, edge) == pytest.approx(expected, rel=1e-12)


def test_hypervolume_in_the_objectives_own_directions() -> None:
    table = _points((0.5, 10), (0.75, 20), (0.25, 30))
    reference = {"recall": 0.0, "state_bytes": 40.0}
    assert hypervolume(table, OBJECTIVES, reference) == pytest.approx(0.5 * 30 + 0.25 * 20)
    assert hypervolume(table, OBJECTIVES, {"recall": 0.5, "state_bytes": 40.0}) == pytest.approx(0.25 * 20)
    assert hypervolume(table, OBJECTIVES, {"recall": 0.8, "state_bytes": 40.0}) == 0.0


def test_reference_is_a_tenth_of_the_range_beyond_the_worst() -> None:
    table = _points((0.5, 10), (0.75, 20), (0.25, 30), (0.0, math.nan))
    reference = reference_point(table, OBJECTIVES)
    assert reference == pytest.approx({"recall": 0.2, "state_bytes": 32.0})
    assert hypervolume(table, OBJECTIVES) == pytest.approx(hypervolume(table, OBJECTIVES, reference))
    assert hypervolume(table.iloc[:1], OBJECTIVES) > 0.0


def test_reference_that_lacks_an_objective() -> None:
    with pytest.raises(SpecError, match='no value for "state_bytes"'):
        hypervolume(_points((0.5, 10)), OBJECTIVES, {"recall": 0.0})


def test_hypervolume_of_nothing() -> None:
    table = _points((math.nan, 10))
    assert hypervolume(table, OBJECTIVES) == 0.0
    assert reference_point(table, OBJECTIVES) == {}
    assert len(hypervolume_over_trials(table, OBJECTIVES)) == 0


def test_hypervolume_over_trials_grows_to_the_whole() -> None:
    generator = np.random.default_rng(1)
    table = _points(*map(tuple, generator.random((30, 2))))
    table["number"] = generator.permutation(30)
    table.loc[3, "recall"] = math.nan
    growth = hypervolume_over_trials(table, OBJECTIVES)
    assert growth["number"].tolist() == sorted(set(table["number"]) - {table["number"][3]})
    assert (growth["hypervolume"].diff().dropna() >= 0).all()
    reference = reference_point(table, OBJECTIVES)
    for index in (0, 9, 28):
        so_far = table[table["number"] <= growth["number"][index]]
        assert growth["hypervolume"][index] == pytest.approx(hypervolume(so_far, OBJECTIVES, reference))
    assert growth["hypervolume"].iloc[-1] == pytest.approx(hypervolume(table, OBJECTIVES))
