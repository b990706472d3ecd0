"""Objectives: read from what a database holds, told from one another, and shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from archsearch.analysis.objectives import Objective
from archsearch.errors import SpecError

COST = Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@32768")
RECALL = Objective(name="recall", direction="maximize")


@pytest.mark.parametrize("objective", [COST, RECALL], ids=lambda objective: objective.name)
def test_it_comes_back_from_the_store_as_it_went(objective: Objective) -> None:
    assert Objective.from_json(objective.to_json()) == objective


@pytest.mark.parametrize("left_out", [{}, {"unit": None, "metric": None}, {"unit": "", "metric": ""}], ids=str)
def test_the_metric_is_the_name_unless_another_is_stored(left_out: dict[str, Any]) -> None:
    assert Objective.from_json({"name": "recall", "direction": "maximize", **left_out}) == RECALL
    assert RECALL.metric == "recall"


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match='"up" is no direction'):
        Objective.from_json({"name": "recall", "direction": "up"})


@pytest.mark.parametrize(
    ("metric", "is_cost", "context"),
    [
        ("state_bytes@32768", True, 32768),
        ("decode_flops@1", True, 1),
        ("state_bytes", True, None),
        ("state_bytes@many", True, None),
        ("state_bytes@1@2", True, None),
        ("state_bytes@" + "9" * 5000, True, None),
        ("state_bytes@\u0663", True, None),
        ("recall", False, None),
        ("copying.accuracy@2x", False, None),
        ("other@32768", False, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_cost_is_known_by_its_metric_and_says_its_context(metric: str, is_cost: bool, context: int | None) -> None:
    objective = Objective(name="x", direction="minimize", metric=metric)
    assert (objective.is_cost, objective.context) == (is_cost, context)


@pytest.mark.parametrize(
    ("objective", "value", "shown"),
    [(COST, 2048.0, "2 KiB"), (RECALL, 0.5, "0.500"), (COST, math.nan, "-"), (RECALL, math.nan, "-")],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_value_is_shown_with_its_unit(objective: Objective, value: float, shown: str) -> None:
    assert objective.show(value) == shown
