"""Early stopping as pure logic: who is beyond hope, by looks, ended runs, costs and noise."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from search_fakes import Bits, Recall, RecallOptions

from archsearch.analysis.objectives import Objective
from archsearch.search.stopping import FEWEST, Stop, Stopping, value_at
from archsearch.search.tables.search import EarlyStopTable
from archsearch.tasks import Task

COST = Objective(name="state_bytes", direction="minimize", metric="state_bytes@1024")
RECALL = Objective(name="recall-task.accuracy", direction="maximize")
BITS = Objective(name="bits.bits_per_byte", direction="minimize")
LONG = Objective(name="bits.bits_per_byte@2x", direction="minimize")
LEAST = Objective(name="recall", direction="maximize")


class Other(Recall):
    name = "other-recall"
    settings: ClassVar[Any] = Recall.settings


TASKS: dict[str, Task] = {"recall-task": Recall(RecallOptions()), "bits": Bits(RecallOptions())}
TOTAL = 100


class Search:
    """A rule, and trials with curves of 10 looks."""

    def __init__(self, *objectives: Objective, tasks: dict[str, Task] = TASKS, **numbers: Any) -> None:
        self.rule = Stopping(EarlyStopTable(**numbers), (*objectives, COST), tasks)
        self.metrics = {name: task.metric for name, task in tasks.items()}
        self.number = 0

    def enter(self, cost: float, *, stands: bool = True) -> int:
        self.number += 1
        self.rule.enter(self.number, {COST.metric: cost}, stands=stands)
        return self.number

    def end(self, trial: int, values: list[float], *, task: str = "recall-task", seed: int = 0, **more: float) -> None:
        self.look(trial, values, task=task, seed=seed)
        self.rule.ended(trial, (task, seed), {self.metrics[task]: values[-1], **more})

    def look(self, trial: int, values: list[float], *, task: str = "recall-task", seed: int = 0) -> None:
        looks = [(10 * (index + 1), value) for index, value in enumerate(values)]
        self.rule.looked(trial, (task, seed), looks, TOTAL)

    def judge(self, trial: int, *, task: str = "recall-task", seed: int = 0) -> Stop | None:
        return self.rule.judge(trial, (task, seed))

    def fill(self, count: int = FEWEST, *, cost: float = 1.0, top: float = 0.9, **where: Any) -> list[int]:
        """Trainings that learn evenly, cheap and good."""
        trials = [self.enter(cost) for _ in range(count)]
        for trial in trials:
            self.end(trial, [top * (step + 1) / 10 for step in range(10)], **where)
        return trials


def test_a_candidate_out_of_reach_is_stopped_with_the_step_and_who_dominates_it() -> None:
    search = Search(RECALL, grace=0.5)
    better = search.fill()
    mine = search.enter(2.0)
    search.look(mine, [0.0] * 9)  # the most that any gained from step 90 on is 0.09
    found = search.judge(mine)
    assert found is not None
    assert (found.task, found.seed, found.step, found.total_steps) == ("recall-task", 0, 90, TOTAL)
    assert found.trials == tuple(better)
    assert list(found.looks) == [(10 * (step + 1), 0.0) for step in range(9)]
    assert (
        found.reason == "stopped at step 90 of 100 of recall-task, seed 0: dominated by trial 1, 2, 3, 4, 5 and another"
    )


def test_the_last_look_of_a_run_counts_also_where_it_comes_with_the_end() -> None:
    search = Search(RECALL, grace=0.5)
    for trial in [search.enter(1.0) for _ in range(FEWEST)]:
        search.look(trial, [0.1])
        search.rule.ended(trial, ("recall-task", 0), {"accuracy": 0.9}, [(10, 0.0), (20, 0.9)], TOTAL)
    mine = search.enter(2.0)
    search.look(mine, [0.1] * 5)  # all had learnt at step 20: nothing is gained from step 50 on
    assert search.judge(mine) is not None


def test_the_greatest_gain_that_was_seen_is_granted_to_every_candidate() -> None:
    search = Search(RECALL, grace=0.0)
    search.fill()
    late = search.enter(1.0)
    search.end(late, [0.0] * 7 + [0.9, 0.9, 0.9])  # retrieval that emerges suddenly, after step 70
    mine = search.enter(2.0)
    search.look(mine, [0.0] * 7)
    assert search.judge(mine) is None
    search.look(mine, [0.0] * 8)
    assert search.judge(mine) is not None


def test_nothing_is_stopped_in_its_grace_or_before_enough_trainings_have_ended() -> None:
    for count, grace, stopped in ((FEWEST, 0.9, True), (FEWEST, 0.91, False), (FEWEST - 1, 0.9, False)):
        search = Search(RECALL, grace=grace)
        search.fill(count)
        mine = search.enter(2.0)
        search.look(mine, [0.0] * 9)
        assert (search.judge(mine) is not None) == stopped


@pytest.mark.parametrize(("cost", "stopped"), [(0.9, False), (1.0, True), (1.1, True)])
def test_who_costs_more_dominates_nobody(cost: float, stopped: bool) -> None:
    search = Search(RECALL)
    search.fill()
    mine = search.enter(cost)
    search.look(mine, [0.0] * 9)
    assert (search.judge(mine) is not None) == stopped


def test_too_few_others_and_those_that_do_not_stand_stop_nobody() -> None:
    search = Search(RECALL, others=3)
    search.fill(top=0.05)
    good = search.fill(2)
    out = search.enter(1.0, stands=False)
    search.end(out, [0.9] * 10)
    mine = search.enter(2.0)
    search.look(mine, [0.0] * 9)
    assert search.judge(mine) is None
    third = search.fill(1)
    found = search.judge(mine)
    assert found is not None
    assert found.trials == (*good, *third)
    search.rule.leave(third[0])
    assert search.judge(mine) is None


def test_every_measured_objective_must_be_known_and_beaten() -> None:
    search = Search(RECALL, BITS)
    for trial in search.fill():
        search.end(trial, [3.0 - 0.1 * step for step in range(10)], task="bits")
    mine = search.enter(2.0)
    search.end(mine, [0.0] * 10)
    assert search.judge(mine) is None  # nothing is known of the bits yet
    search.look(mine, [2.0] * 8, task="bits")
    assert search.judge(mine, task="bits") is None  # better than all, as less is
    search.look(mine, [2.9] * 9, task="bits")
    found = search.judge(mine, task="bits")
    assert found is not None
    assert (found.task, found.step) == ("bits", 90)


def test_a_run_that_has_ended_stops_before_the_next_begins() -> None:
    search = Search(RECALL)
    search.fill()
    mine = search.enter(2.0)
    search.end(mine, [0.1] * 10)
    found = search.judge(mine)
    assert found is not None
    assert (found.step, found.looks) == (TOTAL, ())
    assert found.reason.startswith("stopped after recall-task, seed 0: dominated by trial 1,")


def test_what_only_the_end_tells_is_not_known_while_a_run_goes() -> None:
    search = Search(LONG)
    for trial in search.fill(task="bits", **{"bits_per_byte@2x": 1.0}):
        assert trial
    mine = search.enter(2.0)
    search.look(mine, [9.0] * 9, task="bits")
    assert search.judge(mine, task="bits") is None
    search.end(mine, [9.0] * 10, task="bits", **{"bits_per_byte@2x": 8.0})
    assert search.judge(mine, task="bits") is not None


def test_the_least_of_recall_tasks_is_bounded_by_any_of_them() -> None:
    search = Search(LEAST, tasks={"recall-task": Recall(RecallOptions()), "other-recall": Other(RecallOptions())})
    for trial in search.fill():
        search.end(trial, [0.8] * 10, task="other-recall")
    mine = search.enter(2.0)
    search.end(mine, [0.1] * 10)
    assert search.judge(mine) is not None  # whatever the other task gives


def test_noise_of_repeated_seeds_counts_and_more_seeds_tell_more() -> None:
    search = Search(RECALL, noise=2.0, others=1)
    for trial in [search.enter(1.0) for _ in range(FEWEST)]:
        for seed, value in enumerate(
            (0.4, 0.6)
        ):  # a deviation of 0.14, 0.28 for a difference of one seed: 2 x 1.41 x 0.14 = 0.4
            search.end(trial, [value] * 10, seed=seed)
    mine = search.enter(2.0)
    search.end(mine, [0.1] * 10)
    assert search.judge(mine) is None
    search.end(mine, [0.1] * 10, seed=1)
    found = search.judge(mine, seed=1)
    assert found is not None
    assert found.seed == 1


def test_before_noise_is_known_a_share_of_the_range_must_lie_between() -> None:
    for value, stopped in ((0.79, True), (0.85, False)):
        search = Search(RECALL, margin=0.1)
        search.fill()
        search.end(search.enter(3.0), [0.0] * 10)  # a range of 0.9
        mine = search.enter(2.0)
        search.end(mine, [value] * 10)
        assert (search.judge(mine) is not None) == stopped


def test_values_that_are_not_finite_stop_nobody() -> None:
    search = Search(RECALL)
    search.fill(top=float("nan"))
    mine = search.enter(2.0)
    search.end(mine, [0.1] * 10)
    assert search.judge(mine) is None


def test_a_search_over_costs_alone_stops_nobody() -> None:
    search = Search()
    search.fill()
    mine = search.enter(2.0)
    search.end(mine, [0.0] * 10)
    assert search.judge(mine) is None


def test_the_value_at_a_step_is_that_of_the_last_look() -> None:
    looks = [(10, 0.1), (20, 0.2)]
    assert [value_at(looks, step) for step in (9, 10, 19, 20, 500)] == [None, 0.1, 0.1, 0.2, 0.2]
