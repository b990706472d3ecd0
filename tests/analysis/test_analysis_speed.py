"""Speed of learning from curves: targets, crossings between looks, and what never arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from archsearch.analysis.objectives import Objective
from archsearch.analysis.speed import Speed, Timed, speed_of, target_of, timed

PER_STEP = 8 * 16


def run(values: Sequence[float | None], **changes: Any) -> dict[str, Any]:
    """A measurement of 100 steps with looks at equal distances."""
    every = 100 // len(values)
    given: dict[str, Any] = {
        "metric": "accuracy",
        "direction": "maximize",
        "chance": 0.1,
        "status": "complete",
        "seq_len": 16,
        "seed": 0,
        "recipe": {"steps": 100, "batch_size": 8, "eval_every": every, "stop_at": 0.0},
        "curve": [{"step": float(every * (at + 1)), "accuracy": value} for at, value in enumerate(values)],
    }
    return {**given, **changes}


FULL = run([0.2, 0.4, 0.6, 0.8, 0.9])


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5], 20),  # at the first look, from chance at step 0
        ([0.9, 0.9, 0.9, 0.9, 0.9], 10),
        ([0.3, 0.3, 0.7, 0.9, 0.9], 50),  # half-way between two looks
        ([0.1, 0.1, 0.1, 0.1, 0.5], 100),
        ([0.7, 0.2, 0.2, 0.2, 0.2], 20 * 4 / 6),  # the first time counts, whatever comes after
    ],
)
def test_the_way_between_two_looks_is_a_straight_line(values: Sequence[float], step: float) -> None:
    target = target_of(FULL, 0.5)
    assert target is not None
    assert target.value == pytest.approx(0.5)
    found = speed_of(run(values), target)
    assert found is not None
    assert found.tokens == pytest.approx(PER_STEP * step)
    assert found.budget == 100 * PER_STEP


def test_who_never_arrives_makes_any_mean_larger_than_the_budget() -> None:
    target = target_of(FULL, 0.95)
    assert target is not None
    never = speed_of(run([0.1, 0.2, 0.3, 0.4, 0.5]), target)
    assert never == Speed(tokens=None, budget=100 * PER_STEP)
    soon = Speed(tokens=1.0, budget=100 * PER_STEP)
    assert (2 * soon.censored(3) + never.censored(3)) / 3 > never.budget
    assert never.censored(1) == 2 * never.budget
    objective = Objective(name="mqar.tokens_to_95", direction="minimize", budget=never.budget)
    assert objective.show(never.censored(1)) == "not in 12.8 k tokens"
    assert objective.show(1234.0) == "1.23 k tokens"
    assert Objective.from_json(objective.to_json()) == objective
    assert "budget" not in Objective(name="recall", direction="maximize").to_json()


def test_a_loss_is_timed_from_full_attentions_first_look() -> None:
    """Every model is soon better than chance: half of the way from there says nothing of who learns faster."""
    loss = {"direction": "minimize", "chance": 8.0}
    target = target_of(run([4.0, 3.0, 2.5, 2.2, 2.0], **loss), 0.5)
    assert target is not None
    assert (target.value, target.start) == (3.0, 8.0)
    found = speed_of(run([5.0, 4.0, 2.0, 2.0, 2.0], **loss), target)
    assert found is not None
    assert found.tokens == pytest.approx(PER_STEP * 50)


@pytest.mark.parametrize(
    "timer",
    [
        run([0.1, 0.1, 0.12, 0.13, 0.14]),
        run([0.2, 0.1, 0.1, 0.1, 0.05]),
        run([0.2, 0.9, 0.9, 0.9, 0.9], status="diverged"),
        run([None, 0.9, 0.9, 0.9, 0.9]),
        run([4.0, 4.0, 4.0, 4.0, 3.95], direction="minimize", chance=8.0),
        run([4.0, 4.0, 4.0, 4.0, 4.5], direction="minimize", chance=8.0),
    ],
)
def test_a_reference_that_learnt_nothing_times_nobody(timer: dict[str, Any]) -> None:
    assert target_of(timer, 0.5) is None


def test_a_target_is_no_higher_than_where_trainings_stop() -> None:
    recipe = {"steps": 100, "batch_size": 8, "eval_every": 20, "stop_at": 0.8}
    target = target_of(run([0.2, 0.4, 1.0], recipe=recipe), 0.95)
    assert target is not None
    assert target.value == 0.8
    stopped = speed_of(run([0.2, 0.81], recipe=recipe), target)
    assert stopped is not None
    assert stopped.tokens is not None


def test_architectures_are_timed_by_full_attention_of_the_same_seed() -> None:
    full, other = {"layers": [{"mixer": "full"}]}, {"layers": [{"mixer": "full"}, {"mixer": "kda"}]}
    slow = run([0.1, 0.1, 0.2, 0.4, 0.9])
    runs = [
        ("a", full, "mqar", FULL),
        ("a", full, "mqar", {**run([0.2, 0.9, 0.9, 0.9, 0.3]), "seed": 1}),
        ("b", other, "mqar", slow),
        ("b", other, "mqar", {**run([0.1, 0.1, 0.1, 0.1, 0.1]), "seed": 1}),
        ("b", other, "text", slow),
        ("c", other, "mqar", {**slow, "seed": 2}),
        ("d", other, "mqar", {**slow, "recipe": {**slow["recipe"], "eval_every": 50}}),
    ]
    found = timed(runs)
    assert set(found) == {("a", "mqar"), ("b", "mqar")}
    half = found["b", "mqar"]["tokens_to_half"]
    assert half == Timed(tokens=pytest.approx(PER_STEP * 84), arrived=1, seeds=2, budget=100 * PER_STEP)
    assert found["a", "mqar"]["tokens_to_half"].arrived == 2
