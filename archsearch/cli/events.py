"""Events: a search's as log records, with the ids of the search and of the trial, for a collector of logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archsearch.analysis.running_front import FrontPoint
from archsearch.cli.logs import FIELDS, log
from archsearch.errors import StorageError
from archsearch.search.ledger import TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.view import Briefing, TrialProgress, View
from archsearch.storage import Reader

COUNTS = ("planned", "finished", "complete", "pruned", "diverged", "failed", "reused", "refused")


class EventView(View):
    """Logs every event, at the level of information."""

    def __init__(self, store: Reader, search: str) -> None:
        self._store, self._search = store, search
        self._ids: dict[str, Any] = {"search": search}

    def begun(self, briefing: Briefing) -> None:
        """What is planned; from here on the id of the search is known."""
        try:
            self._ids["search_id"] = self._store.search(self._search).id
        except StorageError as error:
            log.warning("the id of the search cannot be read: %s", error)
        plan = {"planned": briefing.planned, "concurrency": briefing.concurrency, "database": briefing.database}
        self._say("begun", f"search {self._search} begun", plan)

    def trial_started(self, order: TrialOrder) -> None:
        """Which candidate it is."""
        self._say("trial_started", f"trial {order.trial} started", {**_of(order), "pattern": order.pattern})

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """Task, seed, step and value."""
        text = f"trial {order.trial}: step {progress.step} of {progress.total_steps}"
        self._say("trial_progressed", text, {**_of(order), **vars(progress)})

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        """State and reason."""
        self._say("trial_ended", f"trial {order.trial} {state}", {**_of(order), "state": state, "reason": reason})

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        """The counts."""
        counts = {name: getattr(progress, name) for name in COUNTS}
        self._say("advanced", f"{progress.finished} of {progress.planned} trials", {**counts, "front": len(front)})

    def noted(self, text: str) -> None:
        """A remark."""
        self._say("noted", text, {})

    def ended(self, state: str, reason: str) -> None:
        """State and reason of the search."""
        self._say("ended", f"search {self._search} {state}", {"state": state, "reason": reason})

    def _say(self, event: str, text: str, fields: dict[str, Any]) -> None:
        log.info("%s", text, extra={FIELDS: {"event": event, **self._ids, **fields}})


def _of(order: TrialOrder) -> dict[str, Any]:
    return {"trial": order.trial, "kind": order.kind}
