"""Survivors of a rung: rank, crowding, and those that noise does not tell apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from archsearch.analysis.objectives import Objective
from archsearch.analysis.survivors import crowding_distance, survivors

SCORE = Objective(name="score", direction="maximize")
COST = Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@1024")


def table(
    rows: list[tuple[str, float, float]], *, std: float = 0.01, seeds: int = 2, references: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Points by digest, score and cost."""
    return pd.DataFrame(
        {
            "trial": range(1, len(rows) + 1),
            "number": range(len(rows)),
            "pattern": [row[0] for row in rows],
            "digest": [row[0] for row in rows],
            "kind": ["reference" if row[0] in references else "search" for row in rows],
            "state": "complete",
            "seeds": [list(range(seeds))] * len(rows),
            "confirmed": False,
            "exercised": True,
            "feasible": True,
            "score": [row[1] for row in rows],
            "score_std": std if seeds > 1 else np.nan,
            "state_bytes": [row[2] for row in rows],
            "state_bytes_std": 0.0,
        }
    )


def kept(points: pd.DataFrame, keep: int, at_most: int | None = None, **options: object) -> dict[str, str]:
    found = survivors(points, [SCORE, COST], keep=keep, at_most=at_most or keep, **options)  # type: ignore[arg-type]
    return dict(found.kept)


CLEAR = [("a", 0.9, 40), ("b", 0.7, 20), ("c", 0.3, 10), ("d", 0.6, 30), ("e", 0.2, 50)]


def test_the_front_comes_first_then_the_next_rank() -> None:
    assert kept(table(CLEAR), 3) == {"a": "front", "c": "front", "b": "front"}
    assert kept(table(CLEAR), 4)["d"] == "rank"
    assert set(kept(table(CLEAR), 5)) == set("abcde")
    assert set(kept(table(CLEAR), 50)) == set("abcde")


def test_of_a_rank_that_is_too_many_the_crowded_go_first() -> None:
    rows = [("a", 0.9, 40), ("near a", 0.89, 39), ("middle", 0.5, 25), ("c", 0.1, 10)]
    found = survivors(table(rows, std=0.0001), [SCORE, COST], keep=3, at_most=3)
    assert {digest for digest, _ in found.kept} == {"a", "middle", "c"}
    assert found.cut == ("near a",)


def test_what_noise_does_not_tell_from_the_kept_is_kept_up_to_the_cap() -> None:
    rows = [("best", 0.80, 20), ("tied", 0.79, 20), ("tied too", 0.78, 21), ("worse", 0.2, 22)]
    loud = survivors(table(rows, std=0.05, seeds=3), [SCORE, COST], keep=1, at_most=2)
    assert loud.kept == (("best", "front"), ("tied", "untold"))
    assert loud.cut == ("tied too",)
    quiet = survivors(table(rows, std=0.0001, seeds=3), [SCORE, COST], keep=1, at_most=2)
    assert (quiet.kept, quiet.cut) == ((("best", "front"),), ())


def test_of_many_equals_chance_alone_loses_few() -> None:
    rng, lost = np.random.default_rng(0), 0
    for _ in range(8):
        seeds = 0.5 + 0.05 * rng.standard_normal((30, 2))
        points = table([(str(index), float(mean), 10) for index, mean in enumerate(seeds.mean(axis=1))])
        points["score_std"] = seeds.std(axis=1, ddof=1)
        lost += 30 - len(kept(points, 1, 30))
    assert lost < 0.08 * 8 * 30


def test_equal_seeds_do_not_say_that_there_is_no_noise() -> None:
    rows = [("solved", 1.0, 20), ("nearly", 0.98, 20), ("worse", 0.2, 20)]
    found = survivors(table(rows, std=0.0), [SCORE, COST], keep=1, at_most=3)
    assert found.unknown == ("score",)
    assert [digest for digest, _ in found.kept] == ["solved", "nearly", "worse"]
    points = table(rows, std=0.0)
    points.loc[2, "score_std"] = 0.05
    told = survivors(points, [SCORE, COST], keep=1, at_most=3)
    assert (told.unknown, len(told.kept)) == ((), 3)  # one degree of freedom tells nothing apart


def test_costs_alone_dominate_where_scores_are_equal() -> None:
    rows = [("cheap", 0.5, 10), ("dear", 0.5, 20)]
    assert kept(table(rows, std=0.1), 1, 2) == {"cheap": "front"}


def test_unknown_noise_is_told_and_nothing_is_told_apart() -> None:
    found = survivors(table(CLEAR, seeds=1), [SCORE, COST], keep=3, at_most=4)
    assert found.unknown == ("score",)
    assert [digest for digest, _ in found.kept] == ["a", "c", "b", "d"]
    assert found.cut == ("e",)


def test_references_dominate_and_are_not_carried() -> None:
    rows = [("full", 0.95, 15), *CLEAR]
    assert kept(table(rows, references=("full",)), 3) == {"c": "front", "a": "rank", "b": "rank"}


def test_what_is_left_out_neither_stands_nor_dominates() -> None:
    assert set(kept(table(CLEAR), 2, 2, without=("a", "c"))) == {"b", "d"}
    none = survivors(table(CLEAR), [SCORE, COST], keep=2, at_most=2, without=tuple("abcde"))
    assert (none.kept, none.cut) == ((), ())


def test_what_may_not_stand_on_a_front_does_not_survive() -> None:
    points = table(CLEAR)
    points.loc[0, "exercised"] = False
    points.loc[1, "state"] = "diverged"
    points.loc[2, "feasible"] = False
    assert set(kept(points, 5)) == {"d", "e"}


def test_ends_of_a_rank_are_the_least_crowded() -> None:
    values = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    assert crowding_distance(values).tolist() == [np.inf, pytest.approx(1.5), pytest.approx(1.5), np.inf]
    assert crowding_distance(np.array([[1.0], [1.0]])).tolist() == [np.inf, np.inf]
