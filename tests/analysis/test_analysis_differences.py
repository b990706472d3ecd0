"""Differences: what seeds alone could make, and what is left unsaid without them."""

from __future__ import annotations

from math import inf, isnan, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from archsearch.analysis.differences import (
    SeedNoise,
    difference,
    exact_difference,
    holm,
    noise_of_differences,
    paired_difference,
    seed_noise,
)


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


def test_pairs_of_seeds_give_students_interval() -> None:
    first, second = {0: 0.5, 1: 0.9, 2: 0.7}, {0: 0.6, 1: 0.95, 2: 0.85, 9: 0.1}
    found, chance = paired_difference(first, second)
    expected = stats.ttest_rel([second[seed] for seed in first], list(first.values()))
    assert found.noise == "seeds"
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert chance == pytest.approx(expected.pvalue)


def test_pairs_that_differ_by_the_same_take_the_noise_of_all() -> None:
    """Three equal differences, as where a task is solved, do not say that there is none."""
    solved, halved = dict.fromkeys(range(3), 1.0), dict.fromkeys(range(3), 0.5)
    noise = noise_of_differences([solved, halved, {0: 0.4, 1: 0.6, 2: 0.5}, {0: 0.3}, {0: nan, 1: 0.1}])
    assert noise == SeedNoise(deviation=pytest.approx(0.1 * sqrt(2)), freedom=2)
    found, chance = paired_difference(solved, halved, noise)
    assert (found.mean, found.noise) == (-0.5, "pooled")
    assert chance == pytest.approx(2 * stats.t.sf(0.5 / (noise.deviation / sqrt(3)), 2))
    assert paired_difference(solved, solved, SeedNoise(deviation=nan, freedom=0))[1] == 1.0


@pytest.mark.parametrize("second", [{}, {7: 0.5, 8: 0.5}, {0: 0.5}, {0: nan, 1: 0.5}])
def test_without_two_pairs_nothing_tells(second: dict[int, float]) -> None:
    found, chance = paired_difference({0: 0.25, 1: 0.75}, second)
    assert found.noise == "unknown"
    assert isnan(chance)
    assert not found.clear


def test_differences_that_rounding_alone_parts_are_equal_ones() -> None:
    first, second = {0: 0.5, 1: 0.4, 2: 0.6}, {0: 0.8, 1: 0.7, 2: 0.9}
    assert len({second[seed] - first[seed] for seed in first}) > 1
    found, chance = paired_difference(first, second)
    assert (found.mean, found.noise) == (pytest.approx(0.3), "unknown")
    assert isnan(chance)


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_equal_differences_without_noise_of_others_tell_nothing_but_no_difference(level: float) -> None:
    solved, other = dict.fromkeys(range(3), 1.0), dict.fromkeys(range(3), level)
    found, chance = paired_difference(solved, other, noise_of_differences([solved, other]))
    assert (found.mean, found.low, found.high, found.noise) == (level - 1.0, -inf, inf, "unknown")
    assert chance == 1.0 if level == 1.0 else isnan(chance)


def test_a_difference_is_of_the_seeds_that_both_have() -> None:
    assert paired_difference({0: 0.25, 1: 0.75}, {0: 0.5})[0].mean == 0.25
    assert isnan(paired_difference({0: 0.25}, {7: 0.5})[0].mean)


def test_chances_are_corrected_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03, nan]) == pytest.approx([0.03, 0.06, 0.06, nan], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
