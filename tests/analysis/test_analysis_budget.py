"""The best within a budget, and how sure it is."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from archsearch.analysis.budget import Pick, best_within
from archsearch.analysis.objectives import Objective

OBJECTIVES = [
    Objective(name="recall", direction="maximize"),
    Objective(name="state_bytes", direction="minimize", metric="state_bytes@32768"),
]
SEEDS = (0, 1, 2)


def candidate(trial: int, recall: float, nbytes: float, **changes: Any) -> dict[str, Any]:
    return {
        "trial": trial,
        "number": trial,
        "pattern": "full",
        "digest": str(trial),
        "kind": "search",
        "state": "complete",
        "seeds": list(SEEDS),
        "confirmed": False,
        "exercised": True,
        "feasible": True,
        "recall": recall,
        "recall_std": 0.01,
        "recall_min": recall,
        "recall_max": recall,
        "state_bytes": nbytes,
        **changes,
    }


def pick(rows: list[dict[str, Any]], limits: dict[str, float], spread: float = 0.01) -> Pick:
    values = pd.DataFrame(
        [
            (row["trial"], "recall", "test", seed, row["recall"] + spread * (seed - 1))
            for row in rows
            for seed in row["seeds"]
        ],
        columns=["trial", "name", "split", "seed", "value"],
    )
    return best_within(pd.DataFrame(rows), values, OBJECTIVES, "recall", limits)


ROWS = [candidate(1, 0.9, 16.0), candidate(2, 0.7, 8.0), candidate(3, 0.69, 4.0), candidate(4, 0.2, 1.0)]


@pytest.mark.parametrize(
    ("limit", "best", "after", "count"),
    [(100.0, 1, 2, 4), (8.0, 2, 3, 3), (7.9, 3, 4, 2), (1.0, 4, None, 1)],
    ids=["no-limit", "at-the-limit", "below-it", "one-left"],
)
def test_the_best_within_a_limit(limit: float, best: int, after: int | None, count: int) -> None:
    found = pick(ROWS, {"state_bytes": limit})
    assert found.best is not None
    assert found.best["trial"] == best
    assert (found.next["trial"] if found.next else None) == after
    assert found.candidates == count


def test_nothing_within_a_limit() -> None:
    assert pick(ROWS, {"state_bytes": 0.5}) == Pick(candidates=0, best=None, next=None, lead=None)


def test_a_clear_lead_and_one_that_seeds_could_make() -> None:
    clear = pick(ROWS, {}).lead
    close = pick(ROWS, {"state_bytes": 8.0}).lead
    assert clear is not None
    assert close is not None
    assert clear.mean == pytest.approx(0.2)
    assert clear.clear
    assert close.mean == pytest.approx(0.01)
    assert not close.clear


def test_what_may_not_stand_on_a_front_is_not_chosen() -> None:
    rows = [
        *ROWS,
        candidate(5, 1.0, 1.0, feasible=False),
        candidate(6, 1.0, 1.0, exercised=False),
        candidate(7, 1.0, 1.0, state="diverged"),
        candidate(8, float("nan"), 1.0),
    ]
    best = pick(rows, {}).best
    assert best is not None
    assert best["trial"] == 1


def test_of_equal_candidates_the_cheaper_one_comes_first() -> None:
    best = pick([candidate(1, 0.9, 16.0), candidate(2, 0.9, 8.0)], {}).best
    assert best is not None
    assert best["trial"] == 2
