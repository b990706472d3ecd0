"""Limits: how long a trial may take, and how long it may be silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class _Timed:
    begun: float
    heard: float
    excused: float = 0.0
    since: float = 0.0

    def aside(self, now: float) -> float:
        """How much of the time until `now` does not count."""
        return min(max(now - self.since, 0.0), self.excused)


class Limits:
    """Watches trials by name; 0 seconds are any number."""

    def __init__(
        self, *, max_seconds: float = 0.0, max_silence: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock``, in seconds, is for tests."""
        self._max_seconds, self._max_silence, self._clock = max_seconds, max_silence, clock
        self._timed: dict[str, _Timed] = {}

    def begin(self, trial: str) -> None:
        """A worker has begun with the trial."""
        now = self._clock()
        self._timed[trial] = _Timed(begun=now, heard=now)

    def heard(self, trial: str) -> None:
        """The trial has made a step, after what it was excused for."""
        if trial in self._timed:
            now, timed = self._clock(), self._timed[trial]
            timed.begun, timed.heard, timed.excused = timed.begun + timed.aside(now), now, 0.0

    def excuse(self, trial: str, seconds: float) -> None:
        """The next step of the trial is none of its training: until it is heard, so many seconds do not count."""
        self.heard(trial)
        if trial in self._timed:
            timed = self._timed[trial]
            timed.excused, timed.since = seconds, timed.heard

    def end(self, trial: str) -> None:
        """The trial is watched no more."""
        self._timed.pop(trial, None)

    def exceeded(self) -> dict[str, str]:
        """The trials beyond a limit, each with a sentence on which."""
        now = self._clock()
        found = {}
        for trial, timed in self._timed.items():
            until = now - timed.aside(now)
            if 0 < self._max_silence < until - timed.heard:
                found[trial] = f"no step in {self._max_silence:g} s (resources.max_silence): its worker was ended"
            elif 0 < self._max_seconds < until - timed.begun:
                found[trial] = f"not done in {self._max_seconds:g} s (resources.max_seconds): its worker was ended"
        return found
