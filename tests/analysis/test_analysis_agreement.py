"""Agreement of two rungs: rank correlation with bounds that hold the noise, and who changed places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from archsearch.analysis.agreement import agreement, kendall, least_of_perfect, moves, noise_of


def by_seed(*means: float, spread: float = 0.0, seeds: int = 1) -> list[dict[int, float]]:
    return [{seed: mean + spread * (seed - (seeds - 1) / 2) for seed in range(seeds)} for mean in means]


def test_kendall_is_that_of_scipy_row_by_row() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, (20, 9)).astype(float), rng.normal(size=(20, 9)).round(1)
    expected = [kendalltau(one, other).statistic for one, other in zip(x, y, strict=True)]
    assert kendall(x, y) == pytest.approx(np.array(expected))
    assert np.isnan(kendall(np.zeros(4), np.arange(4.0)))


def test_the_same_order_is_an_agreement_of_one_that_few_architectures_do_not_make_sure() -> None:
    found = agreement(by_seed(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), by_seed(0.2, 0.3, 0.5, 0.6, 0.9, 1.0))
    assert (found.tau, found.high, found.count) == (1.0, 1.0, 6)
    assert 0 < found.low < 0.8
    assert found.clear
    assert not found.noise
    turned = agreement(by_seed(0.1, 0.2, 0.3, 0.4), by_seed(0.4, 0.3, 0.2, 0.1))
    assert (turned.tau, turned.low) == (-1.0, -1.0)
    assert not turned.clear


def test_a_perfect_order_says_more_the_more_architectures_have_it() -> None:
    found = [least_of_perfect(count) for count in (4, 6, 10, 20)]
    assert found == sorted(found)
    assert found[0] <= 0 < found[1]
    assert 0.6 < found[-1] < 1.0


def test_noise_of_seeds_widens_the_bounds() -> None:
    means = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    quiet = agreement(by_seed(*means, spread=0.001, seeds=3), by_seed(*means, spread=0.001, seeds=3))
    loud = agreement(by_seed(*means, spread=0.3, seeds=3), by_seed(*means, spread=0.3, seeds=3))
    assert quiet.low == least_of_perfect(6)
    assert loud.tau == 1.0
    assert loud.low < 0.5
    assert quiet.noise
    assert loud.noise


def test_bounds_are_the_same_every_time_and_hold_no_agreement_where_there_is_none() -> None:
    rng = np.random.default_rng(3)
    below, above = (by_seed(*rng.normal(size=10)) for _ in range(2))
    found = agreement(below, above)
    assert found == agreement(below, above)
    assert found.low < 0 < found.high
    assert not found.clear


def test_too_few_or_no_order_is_said_and_not_computed() -> None:
    few = agreement(by_seed(0.1, 0.2, 0.3), by_seed(0.1, 0.2, 0.3))
    assert few.why == "3 in both: from 4 on an order tells something"
    assert few.tau != few.tau
    assert "there is no order" in agreement(by_seed(1.0, 1.0, 1.0, 1.0), by_seed(0.1, 0.2, 0.3, 0.4)).why
    assert agreement([], []).count == 0


def test_noise_is_pooled_over_those_whose_seeds_differ() -> None:
    scores = [{0: 0.1, 1: 0.3}, {0: 0.2, 1: 0.4}, {0: 0.5, 1: 0.5}, {0: 0.9}]
    assert noise_of(scores).freedom == 2
    assert noise_of(scores).deviation == pytest.approx(0.02**0.5)
    assert noise_of([{0: 1.0}]).freedom == 0
    solved = by_seed(1.0, 0.0, 1.0, 0.0, seeds=3)
    assert noise_of(solved).freedom == 0
    assert not agreement(solved, solved).noise


def test_bounds_hold_the_agreement_that_was_found_however_loud_the_noise() -> None:
    rng = np.random.default_rng(0)
    means = np.arange(8) / 10
    other = means + rng.normal(size=8) * 0.1
    scores = [[{seed: m + 0.6 * rng.normal() for seed in range(2)} for m in rung] for rung in (means, other)]
    found = agreement(
        *[
            [{s: v - np.mean(list(one.values())) + m for s, v in one.items()} for one, m in zip(rung, at, strict=True)]
            for rung, at in zip(scores, (means, other), strict=True)
        ]
    )
    assert found.tau > 0.7
    assert found.low <= found.tau <= found.high


def test_a_perfect_order_of_ties_says_no_more_than_as_many_as_are_told_apart() -> None:
    found = agreement(by_seed(0.0, 0.0, 0.0, 0.0, 0.0, 1.0), by_seed(0.2, 0.2, 0.2, 0.2, 0.2, 0.9))
    assert found.tau == 1.0
    assert found.low <= 0
    assert not found.clear


def test_who_rose_and_who_fell_with_the_noise_considered() -> None:
    names = ("a", "b", "c")
    below = dict(zip(names, by_seed(0.9, 0.5, 0.1, spread=0.01, seeds=3), strict=True))
    above = dict(zip(names, by_seed(0.4, 0.8, 0.1, spread=0.01, seeds=3), strict=True))
    found = {move.key: move for move in moves(below, above, maximize=True)}
    assert list(found) == ["b", "a", "c"]
    assert [(found[key].below, found[key].above, found[key].clear) for key in names] == [
        (1, 2, True),
        (2, 1, True),
        (3, 3, False),
    ]
    assert (found["b"].passed, found["a"].passed_by, found["c"].passed) == (("a",), ("b",), ())


@pytest.mark.parametrize(("spread", "seeds"), [(0.5, 3), (0.01, 1)], ids=["noisy", "one-seed"])
def test_a_move_within_noise_is_not_clear(spread: float, seeds: int) -> None:
    below = dict(zip("ab", by_seed(0.5, 0.49, spread=spread, seeds=seeds), strict=True))
    above = dict(zip("ab", by_seed(0.49, 0.5, spread=spread, seeds=seeds), strict=True))
    assert [(move.key, move.clear) for move in moves(below, above, maximize=True)] == [("b", False), ("a", False)]


def test_of_many_pairs_one_that_chance_would_turn_is_not_clear() -> None:
    gap = 0.06  # alone beyond the band of two means
    spread = {"spread": 0.02, "seeds": 3}

    def step(others: int) -> bool:
        rest = [1.0 + index for index in range(others)]
        names = [*"ab", *map(str, range(others))]
        below, above = (
            dict(zip(names, by_seed(*pair, *rest, **spread), strict=True))
            for pair in ((0.5, 0.5 - gap), (0.5, 0.5 + gap))
        )
        return {move.key: move.clear for move in moves(below, above, maximize=True)}["a"]

    assert step(0)
    assert not step(38)


def test_less_is_better_where_the_metric_says_so_and_equal_means_share_a_place() -> None:
    below = dict(zip("abc", by_seed(1.0, 2.0, 3.0), strict=True))
    above = dict(zip("abd", by_seed(2.0, 2.0, 0.0), strict=True))
    found = moves(below, above, maximize=False)
    assert [(move.key, move.below, move.above) for move in found] == [("a", 1, 1), ("b", 2, 1)]
