"""The view: what a search tells whoever watches it; this base says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsearch.search.ledger import Job
from archsearch.search.plan import Progress, Standing
from archsearch.search.survey import Survey


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What is known before the first trial. ``seconds`` is the estimated time of the whole search at most, None
    where it cannot be told here; ``confirms`` says that the front will be measured on fresh seeds; ``objectives``
    are the store's, with name, direction and unit."""

    name: str
    database: str
    survey: Survey
    planned: int
    trials: int
    concurrency: int
    objectives: Sequence[Mapping[str, Any]]
    confirms: bool
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Look:
    """How far a running trial is: the task and seed that it trains, and the latest value of the task's metric."""

    task: str
    seed: int
    step: int
    total_steps: int
    value: float | None


class View:
    """Hears of a search as it goes; every method does nothing here. Calls come from one thread."""

    def begun(self, briefing: Briefing) -> None:
        """The space was surveyed and the first trials are queued."""

    def trial_started(self, job: Job) -> None:
        """A worker has the trial."""

    def trial_looked(self, job: Job, look: Look) -> None:
        """A running trial reports."""

    def trial_ended(self, job: Job, state: str, reason: str) -> None:
        """A trial is complete, diverged or failed."""

    def advanced(self, progress: Progress, front: Sequence[Standing]) -> None:
        """The counts, and the best front so far, by the first objective that is minimised."""

    def ended(self, state: str, reason: str) -> None:
        """The search has ended; what is shown live is taken away."""
