"""How long a search will take, by the first steps of its workers, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from archsearch.arch import ArchSpec
from archsearch.cli.pace import Pace
from archsearch.registry import load_registry
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.view import TrialProgress

ARCH = ArchSpec.parse("full*3", load_registry())


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def order(trial: int, runs: int = 1) -> TrialOrder:
    made = tuple(Run("recall-task", seed) for seed in range(runs))
    return TrialOrder(trial=trial, kind="search", arch=ARCH, pattern="full*3", runs=made)


def progress(step: int, *, seed: int = 0, total: int = 100) -> TrialProgress:
    return TrialProgress(task="recall-task", seed=seed, step=step, total_steps=total, value=None)


def test_nothing_is_promised_before_two_reports() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.left(4, 1) is None
    pace.start(1)
    clock.now += 5
    pace.progressed(order(1), progress(1))
    assert pace.left(4, 1) is None


def test_the_first_steps_promise_a_time_that_leaves_out_the_start() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    clock.now += 30  # a worker starts
    pace.progressed(order(1), progress(10))
    clock.now += 1
    pace.progressed(order(1), progress(20))
    assert pace.trial_seconds() == pytest.approx(31 + 8)
    assert pace.left(3, 1) == pytest.approx(3 * 39 - 31)


def test_runs_of_other_seeds_are_part_of_a_trial() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    pace.progressed(order(1, runs=2), progress(0))
    clock.now += 10
    pace.progressed(order(1, runs=2), progress(50, seed=1))
    assert pace.trial_seconds() == pytest.approx(10 / 0.75)


def test_trials_that_ended_tell_more_than_first_steps() -> None:
    clock = Clock()
    pace = Pace(clock)
    for trial, seconds in ((1, 4.0), (2, 6.0)):
        pace.start(trial)
        clock.now += seconds
        assert pace.end(trial) == pytest.approx(seconds)
    assert pace.trial_seconds() == pytest.approx(5.0)
    assert pace.left(10, 2) == pytest.approx(25.0)
    assert pace.left(0, 2) == 0.0


@pytest.mark.parametrize("steps", [(5, 5), (9, 3)], ids=["no step more", "taken up again from a checkpoint"])
def test_reports_that_tell_nothing_promise_nothing(steps: tuple[int, int]) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    for step in steps:
        clock.now += 1
        pace.progressed(order(1), progress(step))
    assert pace.trial_seconds() is None


def test_a_trial_that_nobody_saw_begin_is_no_error() -> None:
    pace = Pace(Clock())
    pace.progressed(order(7), progress(1))
    assert pace.end(7) == 0.0
