"""Claims: when a search may be taken over, and how long its driver is watched before that is known."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from archsearch.errors import StorageError, TakenOverError
from archsearch.storage.records import SearchRecord

STALE_WATCH_SECONDS = 25.0
"""How long a driver that looks dead is watched; one that lives gives a sign every 10 s."""

RECENT_WATCH_SECONDS = 60.0
"""How long one that gave a sign a moment ago is watched, by who would rather wait than be refused."""

_NAP_SECONDS = 0.5
_POLL_SECONDS = 1.0


def ignore(text: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a driver is watched: ``look`` reads its search, ``tell`` says once what is waited for.

    Time is this process's own (``clock`` in seconds that never run back, ``sleep``): the clocks of two machines may
    differ, and either may be set back, so that only a count that moves shows that a driver lives.
    """

    look: Callable[[], SearchRecord]
    tell: Callable[[str], None]
    sleep: Callable[[float], None]
    clock: Callable[[], float]

    def claimable(self, *, wait: bool) -> SearchRecord:
        """The search as it stands when nobody drives it; raises `StorageError`, with the remedy, where one does."""
        seen = self.look()
        alive = seen.driver.alive() if seen.driver is not None else None
        if seen.state != "running" or alive is False:
            return seen
        if alive is True:
            assert seen.driver is not None
            raise StorageError(
                f'the search "{seen.name}" is running: its driver is {seen.driver}: stop that one first '
                f"(`kill -INT {seen.driver.pid}`)"
            )
        return self._watch(seen, _seconds(seen, wait=wait))

    def _watch(self, seen: SearchRecord, seconds: float) -> SearchRecord:
        self.tell(
            f'the search "{seen.name}" says that it is running: waiting for {seconds:.0f} s to see whether '
            f"{told(seen)} still is (Ctrl-C leaves it as it is)"
        )
        for now in self._looks(seconds):
            if now.state != "running":
                return now
            if now.beats != seen.beats:
                raise StorageError(
                    f'the search "{seen.name}" is running: {told(now)} gave a sign while it was watched: stop that '
                    f"one first"
                )
        return seen

    def _looks(self, seconds: float) -> Iterator[SearchRecord]:
        """The search again and again, the last time when `seconds` have passed; every sleep is short for Ctrl-C."""
        end = self.clock() + seconds
        looked = self.clock()
        while (now := self.clock()) < end:
            self.sleep(min(_NAP_SECONDS, end - now))
            if self.clock() - looked >= _POLL_SECONDS and self.clock() < end:
                looked = self.clock()
                yield self.look()
        yield self.look()


def _seconds(seen: SearchRecord, *, wait: bool) -> float:
    """How long to watch; a heartbeat that lies in the future says as little as an old one."""
    if seen.silent:
        return STALE_WATCH_SECONDS
    if wait:
        return RECENT_WATCH_SECONDS
    raise StorageError(
        f'the search "{seen.name}" is running: {told(seen)} was alive {seen.age:.0f} s ago: stop that one first; '
        f"if it was killed, `archsearch resume {shlex.quote(seen.name)} --wait` makes sure and goes on"
    )


def taken(seen: SearchRecord) -> StorageError:
    """Why a search that was free a moment ago cannot be claimed."""
    return StorageError(
        f'the search "{seen.name}" was taken up by another process ({told(seen)}): leave it to that one'
    )


def told(seen: SearchRecord) -> str:
    """A search's driver, in words."""
    return "its driver" if seen.driver is None else f"its driver ({seen.driver})"


def taken_over(now: SearchRecord) -> TakenOverError:
    """What a driver is told whose search is another's."""
    by = "another driver" if now.driver is None else f"another driver ({now.driver})"
    return TakenOverError(
        f'the search "{now.name}" was taken over by {by} while this one gave no sign of life: this one has written '
        "nothing since, and ends; leave the search to the other"
    )
