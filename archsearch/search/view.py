"""The view: what a search tells whoever watches it; this base says nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archsearch.analysis.objectives import Objective
from archsearch.analysis.running_front import FrontPoint
from archsearch.search.ledger import TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.survey import Survey


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What is known before the first trial. ``confirms`` says that the front will be measured on fresh seeds."""

    name: str
    database: str
    survey: Survey
    planned: int
    trials: int
    concurrency: int
    objectives: Sequence[Objective]
    confirms: bool


@dataclass(frozen=True, kw_only=True)
class TrialProgress:
    """How far a running trial is: the task and seed that it trains, and the latest value of the task's metric."""

    task: str
    seed: int
    step: int
    total_steps: int
    value: float | None


_log = logging.getLogger("archsearch.search")


class View:
    """Hears of a search as it goes; every method does nothing here. Calls come from one thread."""

    def begun(self, briefing: Briefing) -> None:
        """The space was surveyed and the first trials are queued."""

    def trial_started(self, order: TrialOrder) -> None:
        """A worker has the trial."""

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """A running trial reports."""

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        """A trial is complete, pruned, diverged or failed."""

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        """The counts, and the best front so far, by the first objective that is minimised."""

    def noted(self, text: str) -> None:
        """Something worth knowing that is no error, as that a cluster is waited for."""

    def ended(self, state: str, reason: str) -> None:
        """The search has ended; what is shown live is taken away."""


class GuardedView(View):
    """Another view that cannot end what works: one that fails (a disk is full, a terminal is lost, a reader has left)
    is given up with one line in the log, and hears no more."""

    def __init__(self, view: View) -> None:
        self._view: View | None = view

    def begun(self, briefing: Briefing) -> None:
        self._tell(lambda view: view.begun(briefing))

    def trial_started(self, order: TrialOrder) -> None:
        self._tell(lambda view: view.trial_started(order))

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        self._tell(lambda view: view.trial_progressed(order, progress))

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        self._tell(lambda view: view.trial_ended(order, state, reason))

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        self._tell(lambda view: view.advanced(progress, front))

    def noted(self, text: str) -> None:
        self._tell(lambda view: view.noted(text))

    def ended(self, state: str, reason: str) -> None:
        self._tell(lambda view: view.ended(state, reason))

    def _tell(self, what: Callable[[View], None]) -> None:
        if self._view is None:
            return
        try:
            what(self._view)
        except (Exception, SystemExit) as error:  # rich ends the process where a reader has left
            self._view = None
            _log.warning("the search goes on unseen, its view failed: %s: %s", type(error).__name__, error)


class Views(GuardedView):
    """Several views; one that fails is given up alone."""

    def __init__(self, *views: View) -> None:
        super().__init__(View())
        self._views = [GuardedView(view) for view in views]

    def _tell(self, what: Callable[[View], None]) -> None:
        for view in self._views:
            what(view)
