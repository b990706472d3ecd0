"""What a campaign draws: the sampler's proposals, a list's in their order, and when there is no more to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsearch.search.problem import Problem
from archsearch.search.progress import Progress
from archsearch.search.sampler import Proposal, Sampler
from archsearch.search.space import ReplayDraw

PATIENCE = 12
"""After so many draws in a row of candidates that are known, draws are random: a converged sampler repeats itself."""


class Draws:
    """Draws candidates, and says in ``progress`` why drawing has ended."""

    def __init__(self, problem: Problem, sampler: Sampler, progress: Progress) -> None:
        self._space, self._most, self._progress = problem.space, problem.spec.search.max_draws, progress
        self._sampler = sampler
        self._in_order = self._space.in_order()
        self._drawn: set[str] = set()
        self._fruitless = self._stale = 0

    def know(self, digest: str) -> None:
        """A candidate was drawn by an earlier run."""
        self._drawn.add(digest)

    def forget(self, digest: str) -> None:
        """A candidate may be drawn anew."""
        self._drawn.discard(digest)

    def bore_fruit(self) -> None:
        """A draw gave something to train."""
        self._fruitless = 0

    def next(self, params: Mapping[str, Any] | None = None) -> Proposal:
        """The candidate of given choices, else the next of a list, else the sampler's next."""
        params = self._next_in_order() if params is None else params
        if params is not None:
            proposal = self._sampler.ask_for(params)
        else:
            proposal = self._sampler.ask() if self._stale < PATIENCE else self._sampler.ask_random()
        new = proposal.arch.digest not in self._drawn
        self._stale = 0 if new else self._stale + 1
        self._drawn.add(proposal.arch.digest)
        self._fruitless += 1
        return proposal

    def spent(self) -> bool:
        """Whether drawing has come to its end; says why."""
        candidates = self._space.count()
        if len(self._drawn) >= candidates:
            self._progress.ended = f"all {candidates} candidates of the space were tried"
        elif self._fruitless >= self._most:
            self._progress.ended = (
                f"{self._fruitless} draws in a row gave nothing to train (in all {self._progress.refused} candidates "
                f"were refused and {self._progress.repeated} draws repeated known ones)"
            )
        return bool(self._progress.ended)

    def _next_in_order(self) -> Mapping[str, Any] | None:
        """The choices of the next candidate of a list that no earlier run has drawn; None at its end."""
        return next((at for at in self._in_order if self._space.draw(ReplayDraw(at)).digest not in self._drawn), None)
