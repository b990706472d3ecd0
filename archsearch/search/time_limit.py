"""Time limits: a search that is to end by itself, in order and resumable, after some hours or at a moment."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from archsearch.errors import SpecError

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """Ends a search ``hours`` after it began, at the moment ``until`` (UTC-aware), or at what comes first.

    ``since`` is where the hours of several searches together begin, by `time.monotonic`; without it each has its own.
    """

    hours: float | None = None
    until: datetime | None = None
    since: float | None = None

    @classmethod
    def read(cls, hours: float | None, until: str | None, *, now: datetime | None = None) -> TimeLimit:
        """What ``--max-hours`` and ``--until`` say; a moment without a zone is local time. Raises `SpecError` for no
        number above 0, for what is no moment, and for one that has passed."""
        if hours is not None and not (math.isfinite(hours) and hours > 0):
            raise SpecError(f"--max-hours {hours:g}: give a number of hours above 0, as 1.5")
        if until is None:
            return cls(hours=hours)
        try:
            moment = datetime.fromisoformat(until).astimezone(UTC)
        except (ValueError, OverflowError):
            raise SpecError(
                f"--until {until}: write a moment as 2026-05-31T18:00, or with a zone as 2026-05-31T18:00+02:00"
            ) from None
        if moment <= (now or datetime.now(UTC)):
            raise SpecError(f"--until {until}: that is past ({moment:%Y-%m-%d %H:%M:%S} UTC): name a later moment")
        return cls(hours=hours, until=moment)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options that say the same on any machine."""
        hours = () if self.hours is None else ("--max-hours", f"{self.hours:g}")
        return hours if self.until is None else (*hours, "--until", self.until.isoformat())

    def begun(self) -> TimeLimit:
        """The limit of all searches that come from now on, together."""
        return replace(self, since=time.monotonic())

    @contextmanager
    def watched(self, stop: threading.Event, passed: Callable[[str], None]) -> Iterator[None]:
        """Inside, once the time is up, `passed` is told which, and `stop` is set; where `stop` was set before, nothing
        more happens. Hours are counted by a clock that nobody sets."""
        if self.hours is None and self.until is None:
            yield
            return
        left = threading.Event()
        begun = time.monotonic() if self.since is None else self.since
        end = None if self.hours is None else begun + self.hours * 3600

        def watch() -> None:
            while not (stop.is_set() or left.is_set()):
                why = self._passed(end)
                if why:
                    passed(why)
                    stop.set()
                left.wait(_LOOK_SECONDS)

        thread = threading.Thread(target=watch, name="time limit", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join()

    def _passed(self, end: float | None) -> str:
        if end is not None and time.monotonic() >= end:
            return f"its time of {self.hours:g} h was up"
        if self.until is not None and datetime.now(UTC) >= self.until:
            return f"its time was up at {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return ""
