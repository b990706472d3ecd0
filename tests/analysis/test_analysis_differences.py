"""Differences: what seeds alone could make, and what is left unsaid without them."""

from __future__ import annotations

from math import inf, isnan, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from archsearch.analysis.differences import SeedNoise, difference, exact_difference, seed_noise


def test_three_seeds_each_give_welchs_interval() -> None:
    one, other = [0.5, 0.6, 0.55], [0.7, 0.9, 0.8, 0.85]
    found = difference(dict(enumerate(one)), dict(enumerate(other)), SeedNoise(deviation=9.0, freedom=100))
    expected = stats.ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    assert found.noise == "seeds"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(other) - np.mean(one))
    assert found.clear


def test_fewer_seeds_take_the_searchs_noise() -> None:
    found = difference({0: 0.5}, {0: 0.75, 1: 0.75}, SeedNoise(deviation=0.1, freedom=12))
    assert found.noise == "pooled"
    assert found.error == pytest.approx(0.1 * sqrt(1.5))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 12) * found.error)


@pytest.mark.parametrize("pooled", [None, SeedNoise(deviation=nan, freedom=0)], ids=["none", "no-freedom"])
def test_without_any_noise_the_error_is_unknown(pooled: SeedNoise | None) -> None:
    found = difference({0: 0.5}, {0: 0.75}, pooled)
    assert found.mean == pytest.approx(0.25)
    assert isnan(found.error)
    assert (found.low, found.high, found.noise, found.clear) == (-inf, inf, "unknown", False)


@pytest.mark.parametrize("values", [{}, {0: nan, 1: 0.5}], ids=["no-seed", "a-seed-without-value"])
def test_a_side_without_a_mean_has_no_difference(values: dict[int, float]) -> None:
    found = difference({0: 0.5, 1: 0.6}, values, SeedNoise(deviation=0.1, freedom=5))
    assert isnan(found.mean)
    assert not found.clear


def test_equal_seeds_have_no_spread() -> None:
    found = difference(dict.fromkeys(range(3), 0.5), dict.fromkeys(range(3), 0.5))
    assert (found.mean, found.error, found.low, found.high) == (0.0, 0.0, 0.0, 0.0)
    assert not found.clear


def test_costs_are_exact() -> None:
    found = exact_difference(2.0, 5.0)
    assert (found.mean, found.low, found.high, found.noise, found.clear) == (3.0, 3.0, 3.0, "exact", True)


def test_seed_noise_is_pooled_by_freedom() -> None:
    points = pd.DataFrame(
        {"seeds": [[0, 1], [0, 1, 2], [0], []], "recall_std": [0.1, 0.2, nan, nan], "other_std": [nan] * 4}
    )
    found = seed_noise(points, "recall")
    assert found.freedom == 3
    assert found.deviation == pytest.approx(sqrt((0.1**2 + 2 * 0.2**2) / 3))
    assert seed_noise(points, "other").freedom == 0
    assert seed_noise(points.iloc[:0], "recall").freedom == 0
