"""Limits: how long a trial may take, and how long it may be silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True)
class _Timed:
    begun: float
    heard: float


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
        """The trial has made a step."""
        if trial in self._timed:
            self._timed[trial].heard = self._clock()

    def end(self, trial: str) -> None:
        """The trial is watched no more."""
        self._timed.pop(trial, None)

    def exceeded(self) -> dict[str, str]:
        """The trials beyond a limit, each with a sentence on which."""
        now = self._clock()
        found = {}
        for trial, timed in self._timed.items():
            if 0 < self._max_silence < now - timed.heard:
                found[trial] = f"no step in {self._max_silence:g} s (resources.max_silence): its worker was ended"
            elif 0 < self._max_seconds < now - timed.begun:
                found[trial] = f"not done in {self._max_seconds:g} s (resources.max_seconds): its worker was ended"
        return found
