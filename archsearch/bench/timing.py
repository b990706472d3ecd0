"""Timings: repeats of several functions in turn, their spread, and ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Stopwatch: TypeAlias = Callable[[Callable[[], object]], float]
"""Seconds that one call of a function takes; `archsearch.bench.clock` has one for each device."""

FEWEST, MOST = 5, 25
"""Repeats, whatever the time that is given."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat of one function."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the repeats, in seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds) * 1e3, max(self.seconds) * 1e3
        return f"{self.median * 1e3:.3g} ms ({low:.3g} to {high:.3g}, {len(self.seconds)} repeats)"


def wall_clock(function: Callable[[], object]) -> float:
    """The host's clock around one call, for a device that works as it is told."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 7,
    warmup: int = 2,
    stopwatch: Stopwatch = wall_clock,
) -> dict[str, Timing]:
    """Times functions in turn, so that what else the machine does falls on all of them alike."""
    for _ in range(warmup):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(stopwatch(function))
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def measure(
    functions: Mapping[str, Callable[[], object]], *, stopwatch: Stopwatch, seconds: float
) -> dict[str, Timing]:
    """The same for about so many seconds: one call of each warms up, another tells how many repeats there is time for.

    From `FEWEST` to `MOST`, an odd number, so that the median is a repeat.
    """
    for function in functions.values():
        stopwatch(function)
    once = sum(stopwatch(function) for function in functions.values())
    repeats = min(MOST, max(FEWEST, int(seconds / max(once, 1e-9)))) | 1
    return alternate(functions, repeats=repeats, warmup=0, stopwatch=stopwatch)


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times `fast` goes into `slow`, repeat by repeat: median, lowest, highest."""
    ratios: Sequence[float] = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
