"""False alarms: how often a comparison calls something better, worse or learnt where nothing is but noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from archsearch.analysis.compared import Compared
from archsearch.analysis.comparison import judged
from archsearch.analysis.rates import Rates, rates_of
from archsearch.analysis.scores import Score

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
"""Scores of so many architectures and seeds, whose architectures are alike."""


def of_seeds(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """A part that a seed does to all of them, and a part of each."""
    return rng.normal(0.6, 0.05, size) + rng.normal(0.0, 0.05, (1, size[1]))


def counted(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Right answers of 20, of which seeds often have as many."""
    return rng.binomial(20, 0.5, size) / 20


def saturated(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Solved by half of all runs to the last answer."""
    return np.minimum(1.0, rng.normal(1.0, 0.1, size))


def found_or_not(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Either solved or at chance, as where a run finds the trick or does not."""
    return np.where(rng.random(size) < 0.5, 1.0, 0.1)


def uneven(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Some are far noisier than others."""
    return rng.normal(0.0, 1.0, size) * np.exp(rng.normal(0.0, 1.0, (size[0], 1)))


def row(values: NDArray[np.float64], name: str) -> Compared:
    by_seed = {seed: float(value) for seed, value in enumerate(values)}
    score = Score(
        task="t",
        metric="score",
        direction="maximize",
        values=by_seed,
        mean=float(values.mean()),
        error=0.0,
        diverged=(),
        against=None,
        p=float("nan"),
        rates=Rates(means={}, best=None, at_end="", fragile=False, learned=False),
    )
    return Compared(trial=0, pattern=name, digest=name, costs={}, scores={"t": score})


def alarms(draw: Draw, seeds: int, others: int, *, times: int) -> float:
    """The share of comparisons of which any row is told as better or worse."""
    rng, found = np.random.default_rng(7), 0
    for _ in range(times):
        base, *rest = (row(values, str(index)) for index, values in enumerate(draw(rng, (others + 1, seeds))))
        found += any(one.scores["t"].clear for one in judged(base, rest))
    return found / times


def most(times: int) -> float:
    """What a share of 1 in 20 stays below, but for 1 in 1000."""
    return 0.05 + 3.1 * float(np.sqrt(0.05 * 0.95 / times))


@pytest.mark.parametrize("draw", [of_seeds, counted, saturated])
@pytest.mark.parametrize("seeds", [2, 3])
def test_a_comparison_of_equals_says_seldom_that_any_is_better(draw: Draw, seeds: int) -> None:
    assert alarms(draw, seeds, others=4, times=150) <= most(150)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [of_seeds, counted, saturated, found_or_not, uneven])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("others", [1, 2, 5, 20])
def test_it_does_so_for_any_number_of_seeds_and_others(draw: Draw, seeds: int, others: int) -> None:
    assert alarms(draw, seeds, others, times=2000) <= most(2000)


def test_a_difference_beyond_noise_is_still_found() -> None:
    rng, found = np.random.default_rng(3), 0
    for _ in range(60):
        values = of_seeds(rng, (4, 5))
        values[1] += 0.4
        base, *rest = (row(one, str(index)) for index, one in enumerate(values))
        found += judged(base, rest)[0].scores["t"].better
    assert found > 50


def rates(values: NDArray[np.float64], chance: float) -> Rates:
    """Of `[rate, seed]` on validation."""
    return rates_of(
        [
            {
                "sweep": [
                    {"learning_rate": 10.0 ** (index - 3), "validation": {"score": float(value)}}
                    for index, value in enumerate(column)
                ]
            }
            for column in values.T
        ],
        "score",
        "maximize",
        chance,
    )


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_model_at_chance_is_seldom_fragile_or_best_at_an_end(seeds: int, count: int) -> None:
    rng = np.random.default_rng(5)
    found = [rates(0.1 + rng.normal(0.0, 0.004, (count, seeds)), 0.1) for _ in range(150)]
    assert sum(one.fragile or bool(one.at_end) for one in found) / 150 <= most(150)


@pytest.mark.parametrize(
    ("values", "fragile", "at_end"),
    [
        ([[0.101, 0.1, 0.099], [0.5, 0.55, 0.52], [0.098, 0.1, 0.102]], True, ""),
        ([[0.103, 0.098, 0.101], [0.104, 0.9, 0.9], [0.099, 0.101, 0.102]], True, ""),
        ([[0.7, 0.72, 0.71], [0.8, 0.81, 0.8], [0.9, 0.9, 0.91]], False, "highest"),
        ([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]], False, ""),
        ([[0.99, 0.98, 0.99], [0.1, 0.1, 0.1]], True, "lowest"),
        ([[0.9], [0.11], [0.09]], True, "lowest"),
    ],
    ids=["one rate alone", "two seeds of three", "all learn", "none does", "all or nothing", "one seed"],
)
def test_what_was_learnt_is_told(values: list[list[float]], fragile: bool, at_end: str) -> None:
    found = rates(np.array(values), 0.1)
    assert (found.fragile, found.at_end) == (fragile, at_end)
