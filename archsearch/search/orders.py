"""Orders of a campaign on their way: queued, running, waiting to be tried again, or measured and not yet closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from archsearch.search.ledger import Ending, TrialOrder

BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 2.0, 60.0
"""Before a trial is tried again whose worker was lost, doubled each time."""


@dataclass(kw_only=True)
class Pending:
    """An order and who waits for it: a proposal of the sampler, or the recorded parameters of an earlier run; ``lost``
    counts its workers that were lost, and it is not handed out before ``due``."""

    order: TrialOrder
    number: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    lost: int = 0
    due: float = 0.0


class Orders:
    """The orders that are not answered, each in one place; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: deque[Pending] = deque()
        self._running: dict[int, Pending] = {}
        self._later: list[Pending] = []
        self._held: list[tuple[Pending, Callable[[], Ending]]] = []

    @property
    def queued(self) -> int:
        """How many wait to be handed out."""
        return len(self._queue)

    @property
    def running(self) -> list[TrialOrder]:
        """Those that were handed out and not answered."""
        return [pending.order for pending in self._running.values()]

    @property
    def busy(self) -> bool:
        """Whether there is something to wait for: a running order, or one that is tried again after a while."""
        return bool(self._running or self._later)

    def add(self, pending: Pending) -> None:
        """Queues an order behind the others."""
        self._queue.append(pending)

    def add_in_front(self, pending: Pending) -> None:
        """Queues an order that was handed out before."""
        self._queue.appendleft(pending)

    def hand_out(self) -> TrialOrder | None:
        """The next of the queue, which runs from now on."""
        if not self._queue:
            return None
        pending = self._queue.popleft()
        self._running[pending.order.trial] = pending
        return pending.order

    def answered(self, order: TrialOrder) -> Pending:
        """Takes a running order out, which has its answer."""
        return self._running.pop(order.trial)

    def put_off(self, order: TrialOrder, retries: int) -> float | None:
        """A running order lost its worker: seconds until it is tried again, None where it was so often before."""
        pending = self._running[order.trial]
        if pending.lost >= retries:
            return None
        seconds = min(MOST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0**pending.lost)
        pending.lost, pending.due = pending.lost + 1, self._clock() + seconds
        self._later.append(self._running.pop(order.trial))
        return seconds

    def due(self) -> list[Pending]:
        """Takes out those whose time has come to be tried again."""
        now = self._clock()
        found = [pending for pending in self._later if pending.due <= now]
        self._later = [pending for pending in self._later if pending.due > now]
        return found

    def hold(self, pending: Pending, close: Callable[[], Ending]) -> None:
        """Keeps one that is measured, and what closes it."""
        self._held.append((pending, close))

    def held(self) -> list[tuple[Pending, Callable[[], Ending]]]:
        """Takes out those that were kept."""
        held, self._held = self._held, []
        return held

    def clear(self) -> Iterator[TrialOrder]:
        """Takes all of them out: running ones first, then in the order of the queue."""
        held = [pending for pending, _ in self.held()]
        left = [*self._running.values(), *self._queue, *self._later, *held]
        self._running.clear()
        self._queue.clear()
        self._later.clear()
        return (pending.order for pending in left)
