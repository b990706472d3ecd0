"""Pace: how long a search will still take, judged by its workers: by their first steps, then by trials that ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.view import TrialProgress


@dataclass(kw_only=True)
class _UnderWay:
    """A running trial: when it began, and the share of its steps that was done at its first and its latest report."""

    begun: float
    first: tuple[float, float] | None = None
    latest: tuple[float, float] | None = None

    def seconds(self) -> float | None:
        """Its whole time at most, since a trial may solve its task early; None before two reports."""
        if self.first is None or self.latest is None or self.latest[1] <= self.first[1]:
            return None
        per_share = (self.latest[0] - self.first[0]) / (self.latest[1] - self.first[1])
        return self.latest[0] - self.begun + (1.0 - self.latest[1]) * per_share


class Pace:
    """Guesses the time that is left. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[int, _UnderWay] = {}
        self._ended: list[float] = []

    def start(self, trial: int) -> None:
        """A trial begins."""
        self._running[trial] = _UnderWay(begun=self._clock())

    def progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """A running trial says how far it is."""
        under_way = self._running.get(order.trial)
        if under_way is not None:
            under_way.latest = (self._clock(), _share(order, progress))
            under_way.first = under_way.first or under_way.latest

    def end(self, trial: int) -> float:
        """A trial ends; the seconds that it took."""
        under_way = self._running.pop(trial, None)
        seconds = 0.0 if under_way is None else self._clock() - under_way.begun
        self._ended.append(seconds)
        return seconds

    def trial_seconds(self) -> float | None:
        """Seconds of one trial: the mean of those that ended, else at most what the first steps promise, else None."""
        if self._ended:
            return fmean(self._ended)
        promised = [seconds for under_way in self._running.values() if (seconds := under_way.seconds()) is not None]
        return fmean(promised) if promised else None

    def left(self, remaining: int, concurrency: int) -> float | None:
        """Seconds for `remaining` further trials, those under way included; None before anything can be said."""
        each = self.trial_seconds()
        if each is None:
            return None
        now = self._clock()
        under_way = sum(min(each, now - running.begun) for running in list(self._running.values()))
        return max(0.0, remaining * each - under_way) / max(1, min(concurrency, remaining))


def _share(order: TrialOrder, progress: TrialProgress) -> float:
    """The share of an order's steps, over all its runs, that is done."""
    run = Run(progress.task, progress.seed)
    before = order.runs.index(run) if run in order.runs else 0
    return (before + progress.step / max(1, progress.total_steps)) / max(1, len(order.runs))
