"""How long a search will take, by the first steps of its workers, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from archsearch.arch import ArchSpec
from archsearch.cli.pace import Pace
from archsearch.registry import load_registry
from archsearch.search.ledger import Job, Run
from archsearch.search.view import Look

ARCH = ArchSpec.parse("full*3", load_registry())


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def job(trial: int, runs: int = 1) -> Job:
    made = tuple(Run("recall-task", seed) for seed in range(runs))
    return Job(trial=trial, kind="search", arch=ARCH, pattern="full*3", runs=made)


def look(step: int, *, seed: int = 0, total: int = 100) -> Look:
    return Look(task="recall-task", seed=seed, step=step, total_steps=total, value=None)


def test_nothing_is_promised_before_two_looks() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.left(4, 1) is None
    pace.start(1)
    clock.now += 5
    pace.look(job(1), look(1))
    assert pace.left(4, 1) is None


def test_the_first_steps_promise_a_time_that_leaves_out_the_start() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    clock.now += 30  # a worker starts
    pace.look(job(1), look(10))
    clock.now += 1
    pace.look(job(1), look(20))
    assert pace.trial_seconds() == pytest.approx(31 + 8)
    assert pace.left(3, 1) == pytest.approx(3 * 39 - 31)


def test_runs_of_other_seeds_are_part_of_a_trial() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    pace.look(job(1, runs=2), look(0))
    clock.now += 10
    pace.look(job(1, runs=2), look(50, seed=1))
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
def test_looks_that_tell_nothing_promise_nothing(steps: tuple[int, int]) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    for step in steps:
        clock.now += 1
        pace.look(job(1), look(step))
    assert pace.trial_seconds() is None


def test_a_trial_that_nobody_saw_begin_is_no_error() -> None:
    pace = Pace(Clock())
    pace.look(job(7), look(1))
    assert pace.end(7) == 0.0
