"""Mailbox: between the process of a trial and the workers that train it, an actor that assignments and results pass."""

from __future__ import annotations

import asyncio
from typing import Any

IDLE_SECONDS = 10.0
"""How long workers wait for a further trial before they end, as another may wait for their room."""


class Mailbox:
    """Assignments go to all workers, results come from the first, which waits for an answer after all but the last.

    Every method but those of the trial's process, `assign`, `coming` and `answer`, is called by workers.
    """

    def __init__(self) -> None:
        self._assignments: list[dict[str, Any] | None] = []
        self._more = asyncio.Condition()
        self._results: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()
        self._places: dict[int, dict[str, Any]] = {}

    async def assign(self, config: dict[str, Any] | None) -> bool:
        """Gives all workers the next trial; None ends them. False where they have ended for want of one."""
        async with self._more:
            if self._assignments and self._assignments[-1] is None:
                return False
            self._assignments.append(config)
            self._more.notify_all()
            return True

    async def assignment(self, number: int, idle_seconds: float = IDLE_SECONDS) -> dict[str, Any] | None:
        """The trial of this number, counted from 0, once there is one; for all workers None where none came in time."""
        async with self._more:
            try:
                async with asyncio.timeout(idle_seconds if number else None):
                    await self._more.wait_for(lambda: len(self._assignments) > number)
            except TimeoutError:
                self._assignments.append(None)
                self._more.notify_all()
            return self._assignments[number]

    async def placed(self, rank: int, place: dict[str, Any]) -> None:
        """Notes where a worker is."""
        self._places[rank] = place

    async def places(self) -> list[dict[str, Any]]:
        """Where the workers are, as far as they have said so, in their order."""
        return [self._places[rank] for rank in sorted(self._places)]

    async def offer(self, result: dict[str, Any]) -> bool:
        """Hands in a result, and says whether the trial is to go on."""
        self._results.put_nowait(result)
        return True if result["done"] else await self._answers.get()

    async def coming(self) -> dict[str, Any]:
        """The next result."""
        return await self._results.get()

    async def answer(self, go_on: bool) -> None:
        """Answers the result that was taken last."""
        self._answers.put_nowait(go_on)
