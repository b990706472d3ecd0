"""Points: which trial speaks for a candidate, and the mean and spread over its seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from archsearch.analysis import front, points
from archsearch.analysis.objectives import Objective
from archsearch.analysis.points import COLUMNS

OBJECTIVES = [
    Objective(name="recall", direction="maximize"),
    Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@32768"),
]


def _trials(*rows: dict[str, Any]) -> pd.DataFrame:
    common = {"kind": "search", "state": "complete", "seeds": [0], "feasible": True, "exercised": True}
    filled = [
        {"trial": 10 + index, "number": index, "pattern": row["digest"], **common, **row}
        for index, row in enumerate(rows)
    ]
    return pd.DataFrame(filled)


def _metrics(*rows: tuple[int, str, str, int | None, float], step: int | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["trial", "name", "split", "seed", "value"]).assign(step=step)
    return frame.astype({"trial": "int64", "seed": "Int64", "step": "Int64", "value": "float64"})


def _recall(trial: int, **by_seed: float) -> list[tuple[int, str, str, int | None, float]]:
    """``_recall(10, s0=0.5, s1=0.7)``"""
    return [(trial, "recall", "test", int(seed[1:]), value) for seed, value in by_seed.items()]


def test_mean_and_spread_over_seeds() -> None:
    trials = _trials({"digest": "a", "seeds": [0, 1, 2]})
    metrics = _metrics(*_recall(10, s0=0.2, s1=0.4, s2=0.9), (10, "state_bytes@32768", "cost", None, 4096.0))
    table = points(trials, metrics, OBJECTIVES)
    spread = [f"{name}{end}" for name in ("recall", "state_bytes") for end in ("", "_std", "_min", "_max")]
    assert list(table.columns) == [*COLUMNS, *spread]
    row = table.iloc[0]
    assert row["recall"] == pytest.approx(0.5)
    assert row["recall_std"] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert (row["recall_min"], row["recall_max"]) == (0.2, 0.9)
    assert (row["state_bytes"], row["state_bytes_std"]) == (4096.0, 0.0)
    assert (row["state_bytes_min"], row["state_bytes_max"]) == (4096.0, 4096.0)
    assert (row["trial"], row["digest"], row["kind"], row["state"]) == (10, "a", "search", "complete")
    assert row["seeds"] == [0, 1, 2]
    assert not row["confirmed"]


def test_one_seed_has_no_spread() -> None:
    row = points(_trials({"digest": "a"}), _metrics(*_recall(10, s0=0.5)), OBJECTIVES).iloc[0]
    assert row["recall"] == row["recall_min"] == row["recall_max"] == 0.5
    assert math.isnan(row["recall_std"])
    assert math.isnan(row["state_bytes"])


@pytest.mark.parametrize(
    "found",
    [{"s0": 0.9}, {"s0": 0.9, "s1": math.nan}, {"s0": 0.9, "s5": 0.9}, {}],
    ids=["lost", "nan", "other", "none"],
)
def test_seed_without_a_value_leaves_no_mean(found: dict[str, float]) -> None:
    trials = _trials({"digest": "a", "seeds": [0, 1]})
    row = points(trials, _metrics(*_recall(10, **found)), OBJECTIVES).iloc[0]
    assert all(math.isnan(row[column]) for column in ("recall", "recall_std", "recall_min", "recall_max"))


def test_validation_curves_and_other_names_are_not_mixed_in() -> None:
    metrics = pd.concat(
        [
            _metrics(*_recall(10, s0=0.5), (10, "recall", "validation", 0, 0.9), (10, "recalled", "test", 0, 0.8)),
            _metrics((10, "recall", "test", 0, 0.1), (10, "recall", "progress", 0, 0.2), step=5),
        ]
    )
    trials = _trials({"digest": "a"})
    assert points(trials, metrics, OBJECTIVES)["recall"].tolist() == [0.5]
    assert points(trials, metrics, OBJECTIVES, split="validation")["recall"].tolist() == [0.9]


def test_confirmed_values_come_from_the_fresh_seeds() -> None:
    trials = _trials(
        {"digest": "a"},
        {"digest": "b"},
        {"digest": "a", "kind": "confirm", "seeds": [100, 101]},
    )
    metrics = _metrics(
        *_recall(10, s0=0.9),
        *_recall(11, s0=0.6),
        *_recall(12, s100=0.5, s101=0.7),
        (10, "state_bytes@32768", "cost", None, 1.0),
        (11, "state_bytes@32768", "cost", None, 2.0),
    )
    table = points(trials, metrics, OBJECTIVES)
    assert table["digest"].tolist() == ["a", "b"]
    assert table["trial"].tolist() == [12, 11]
    assert table["number"].tolist() == [0, 1]
    assert table["confirmed"].tolist() == [True, False]
    assert table["kind"].tolist() == ["search", "search"]
    assert table["recall"].tolist() == pytest.approx([0.6, 0.6])
    assert table["state_bytes"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("state", ["queued", "running", "failed", "preempted", "cancelled"])
def test_unfinished_confirmation_leaves_the_value_unconfirmed(state: str) -> None:
    trials = _trials({"digest": "a"}, {"digest": "a", "kind": "confirm", "state": state, "seeds": [100]})
    row = points(trials, _metrics(*_recall(10, s0=0.9)), OBJECTIVES).iloc[0]
    assert (row["trial"], row["recall"], bool(row["confirmed"])) == (10, 0.9, False)


def test_diverged_confirmation_takes_the_candidate_off_the_front() -> None:
    trials = _trials({"digest": "a"}, {"digest": "a", "kind": "confirm", "state": "diverged", "seeds": [100]})
    metrics = _metrics(*_recall(10, s0=0.9), (10, "state_bytes@32768", "cost", None, 1.0))
    table = points(trials, metrics, OBJECTIVES)
    assert table["state"].tolist() == ["diverged"]
    assert table["confirmed"].tolist() == [False]
    assert table["recall"].isna().all()
    assert len(front(table, OBJECTIVES)) == 0


def test_a_second_seed_speaks_for_its_candidate_once_it_has_ended() -> None:
    seeds = {"seeds": [0, 1]}
    metrics = _metrics(*_recall(10, s0=0.9), *_recall(11, s0=0.9, s1=0.5), (10, "state_bytes@32768", "cost", None, 1.0))
    row = points(_trials({"digest": "a"}, {"digest": "a", **seeds}), metrics, OBJECTIVES).iloc[0]
    assert (row["recall"], row["seeds"], row["number"], bool(row["confirmed"])) == (0.7, [0, 1], 0, False)
    diverged = points(_trials({"digest": "a"}, {"digest": "a", "state": "diverged", **seeds}), metrics, OBJECTIVES)
    assert len(front(diverged, OBJECTIVES)) == 0
    open_still = points(_trials({"digest": "a"}, {"digest": "a", "state": "running", **seeds}), metrics, OBJECTIVES)
    assert front(open_still, OBJECTIVES)["recall"].tolist() == [0.9]


def test_complete_trial_speaks_before_a_later_one_that_is_not() -> None:
    trials = _trials(
        {"digest": "a", "kind": "reference", "feasible": False},
        {"digest": "a", "state": "infeasible", "feasible": False},
    )
    row = points(trials, _metrics(*_recall(10, s0=0.9)), OBJECTIVES).iloc[0]
    assert (row["trial"], row["state"], row["kind"], bool(row["feasible"])) == (10, "complete", "reference", False)


def test_reference_stays_marked_when_the_sampler_draws_it_or_it_is_confirmed() -> None:
    trials = _trials(
        {"digest": "a"}, {"digest": "a", "kind": "reference"}, {"digest": "a", "kind": "confirm", "seeds": [9]}
    )
    row = points(trials, _metrics(*_recall(12, s9=0.5)), OBJECTIVES).iloc[0]
    assert (row["kind"], row["trial"], bool(row["confirmed"])) == ("reference", 12, True)


def test_candidate_that_one_trial_did_not_exercise_is_not_exercised() -> None:
    trials = _trials({"digest": "a", "exercised": False}, {"digest": "a", "kind": "confirm", "seeds": [9]})
    assert points(trials, _metrics(*_recall(11, s9=0.5)), OBJECTIVES)["exercised"].tolist() == [False]


def test_a_budget_that_grew_lets_a_candidate_in_that_was_refused() -> None:
    trials = _trials({"digest": "a", "state": "infeasible", "feasible": False, "seeds": []}, {"digest": "a"})
    metrics = _metrics(*_recall(11, s0=0.9), (11, "state_bytes@32768", "cost", None, 1.0))
    table = points(trials, metrics, OBJECTIVES)
    assert table["feasible"].tolist() == [True]
    assert front(table, OBJECTIVES)["trial"].tolist() == [11]


def test_nothing_measured_yet() -> None:
    table = points(_trials({"digest": "a", "state": "queued"}), _metrics(), OBJECTIVES)
    assert table["digest"].tolist() == ["a"]
    assert table[["recall", "state_bytes"]].isna().all(axis=None)
    assert len(front(table, OBJECTIVES)) == 0


def test_no_trials_at_all() -> None:
    trials = _trials({"digest": "a"}).iloc[:0]
    table = points(trials, _metrics(), OBJECTIVES)
    assert len(table) == 0
    assert len(front(table, OBJECTIVES)) == 0
