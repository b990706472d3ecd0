"""The measuring loop: what it calls, in which order, how often."""

from __future__ import annotations

import pytest
from bench_samples import ScriptedClock

from archsearch.bench.timing import FEWEST, MOST, alternate, measure, wall_clock


@pytest.mark.parametrize(
    ("once", "budget", "repeats"),
    [(0.01, 0.11, 11), (0.01, 0.1, 11), (10.0, 0.1, FEWEST), (1e-7, 1.0, MOST), (0.01, 0.0, FEWEST)],
)
def test_repeats_follow_the_time_and_are_odd(once: float, budget: float, repeats: int) -> None:
    calls = []
    found = measure({"f": lambda: calls.append(1)}, stopwatch=ScriptedClock(once), seconds=budget)
    assert len(found["f"].seconds) == repeats
    assert len(calls) == repeats + 2  # one warms up, one tells the time


def test_functions_take_turns() -> None:
    order: list[str] = []
    alternate({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2, warmup=1)  # type: ignore[misc]
    assert order == ["a", "b"] * 3


def test_the_time_is_shared_by_all_functions() -> None:
    found = measure({"a": lambda: None, "b": lambda: None}, stopwatch=ScriptedClock(0.01), seconds=0.22)
    assert [len(timing.seconds) for timing in found.values()] == [11, 11]


def test_the_clock_of_the_host_calls_once() -> None:
    calls = []
    assert wall_clock(lambda: calls.append(1)) >= 0
    assert calls == [1]
