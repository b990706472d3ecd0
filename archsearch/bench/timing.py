"""Timings: repeats of several functions in turn, their spread, and ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


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


def alternate(functions: Mapping[str, Callable[[], object]], *, repeats: int = 7, warmup: int = 2) -> dict[str, Timing]:
    """Times functions in turn, so that what else the machine does falls on all of them alike."""
    for _ in range(warmup):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times `fast` goes into `slow`, repeat by repeat: median, lowest, highest."""
    ratios: Sequence[float] = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
