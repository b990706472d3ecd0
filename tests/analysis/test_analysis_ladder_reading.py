"""Scores of a rung: which metrics rungs are compared by, and what each is by seed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from archsearch.analysis.ladder import TIME, Ladder, Metric, Rung, Standing, StepUp
from archsearch.analysis.ladder_reading import metrics_of, scores_of
from archsearch.analysis.ladder_text import agreement_of
from archsearch.analysis.objectives import Objective


def measured(task: str, seed: int, *, recall: bool = True, **test: float) -> Any:
    payload = {"metric": "accuracy", "direction": "maximize", "recall": recall, "test": test}
    return SimpleNamespace(task=task, seed=seed, payload=payload)


def trial(*measurements: Any, seeds: tuple[int, ...] = (0, 1)) -> Any:
    return SimpleNamespace(id=7, seeds=seeds, measurements=measurements)


def names(trial: Any, *objectives: str) -> list[str]:
    given = [Objective(name=name, direction="maximize") for name in objectives]
    return [metric.name for metric in metrics_of(trial, given)]


def test_a_metric_of_ones_own_does_not_stand_in_for_that_of_the_task() -> None:
    one = trial(measured("mqar", 0, accuracy=0.5, induction=0.2))
    assert names(one, "mqar.induction") == ["mqar.induction", "mqar.accuracy"]
    assert names(one, "recall") == ["recall"]
    two = trial(measured("mqar", 0, accuracy=0.5), measured("facts", 0, accuracy=0.4))
    assert names(two, "recall") == ["recall", "mqar.accuracy", "facts.accuracy"]
    own = Metric(name="mqar.induction", direction="maximize", task="mqar")
    assert scores_of(one, own, {}) == {0: 0.2}


def test_how_soon_a_model_learns_is_compared_and_has_no_law() -> None:
    speed = Metric(name="mqar.tokens_to_half", direction="minimize", task="mqar")
    one = trial(measured("mqar", 0, accuracy=0.5), measured("mqar", 1, accuracy=0.6))
    assert scores_of(one, speed, {(7, speed.name): {0: 100.0, 1: 300.0}}) == {0: 100.0, 1: 300.0}
    assert scores_of(one, speed, {(7, speed.name): {0: 100.0}}) == {}
    assert scores_of(one, speed, {}) == {}
    standing = Standing(
        key="k",
        pattern="full",
        why="front",
        trial=7,
        state="complete",
        scores={speed.name: {0: 1.0}},
        flops={"mqar": 1.0},
    )
    rung = Rung(number=1, search="s", state="complete", sizes={}, standings=(standing,), left={})
    assert Ladder(name="s", planned=1, rungs=(rung,), metrics=(speed,)).laws(speed) == {"k": TIME}


def test_a_score_that_lacks_or_is_not_finite_leaves_none() -> None:
    accuracy = Metric(name="mqar.accuracy", direction="maximize", task="mqar")
    assert scores_of(trial(measured("mqar", 0, accuracy=0.5), measured("mqar", 1)), accuracy, {}) == {}
    assert scores_of(trial(measured("mqar", 0, accuracy=float("inf"))), accuracy, {}) == {}


ACCURACY = Metric(name="mqar.accuracy", direction="maximize", task="mqar")


def rung_of(number: int, values: Sequence[Sequence[float]], trainings: str) -> Rung:
    """A rung of architectures with a value a seed; of `trainings` each letter is a training of all of them."""
    standings = tuple(
        Standing(
            key=str(index),
            pattern="full",
            why="front",
            trial=index,
            state="complete",
            scores={ACCURACY.name: dict(enumerate(seeds))},
            trainings={"mqar": {seed: f"{index}{letter}" for seed, letter in enumerate(trainings)}},
        )
        for index, seeds in enumerate(values)
    )
    return Rung(number=number, search="s", state="complete", sizes={}, standings=standings, left={})


def step_between(below: Rung, above: Rung) -> StepUp:
    (step,) = Ladder(name="s", planned=2, rungs=(below, above), metrics=(ACCURACY,)).steps
    return step


def test_a_training_that_two_rungs_have_does_not_agree_with_itself() -> None:
    below = rung_of(1, [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], "a")
    turned = [[0.1, 0.9], [0.2, 0.7], [0.3, 0.6], [0.4, 0.4], [0.5, 0.2], [0.6, 0.0]]
    step = step_between(below, rung_of(2, turned, "ab"))
    assert step.again
    assert step.agreement.tau == -1.0
    assert "left out" in agreement_of(step)
    apart = step_between(below, rung_of(2, turned, "xb"))
    assert not apart.again
    assert apart.agreement.tau > -1.0
    assert "left out" not in agreement_of(apart)


def test_a_rung_of_the_same_trainings_alone_has_no_agreement() -> None:
    below = rung_of(1, [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], "a")
    step = step_between(below, rung_of(2, [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], "a"))
    assert step.agreement.count == 0
    assert "left out" in agreement_of(step)
