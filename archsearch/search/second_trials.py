"""Second seeds in a campaign: whose trial is next, and what a candidate is worth once it has both."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.search.known import Known
from archsearch.search.problem import Problem
from archsearch.search.sampler import Sampler
from archsearch.search.second_seeds import SecondSeeds
from archsearch.search.speed import Timing


class SecondTrials:
    """The candidates that were given a second seed, among those that a campaign ``known``, which it changes."""

    def __init__(self, problem: Problem, known: Mapping[str, Known], timing: Timing, sampler: Sampler) -> None:
        search = problem.spec.search
        self._problem, self._known, self._timing, self._sampler = problem, known, timing, sampler
        self._rule = SecondSeeds(problem.objectives, search.second_seeds, search.first_random)

    def due(self, trained: int) -> bool:
        """Whether the trial after the first `trained` is to be one, if there is a candidate for it."""
        return self._rule.due(trained)

    def next(self) -> Known | None:
        """The candidate of the front so far that is trained with one more seed, where one is left that had none.

        Where an objective is timed by a reference, that one comes first: nothing else is timed with the seed before.
        """
        timer, new = self._problem.timer, self._problem.seeds_with_second[-1]
        may = {
            digest: known.values
            for digest, known in self._known.items()
            if known.state == "measured" and known.values is not None and known.verdict.trainable
        }
        digest = self._rule.choose(may)
        if timer is not None and digest is not None and not self._timing.times(new):
            digest = None if self._rule.has(timer.digest) else timer.digest
        if digest is None or digest not in self._known:
            return None
        self.begun(digest)
        return self._known[digest]

    def begun(self, digest: str) -> None:
        """A known candidate is being trained with its second seed."""
        self._rule.give(digest)
        self._known[digest].second = True

    def ended(self, digest: str, values: Mapping[str, float] | None, *, diverged: bool) -> None:
        """A second seed came to `values`, means over all seeds, which stand for its candidate now. One that diverged
        has none, and one whose second seed failed keeps what it had."""
        known = self._known[digest]
        known.second = False
        if values is not None or diverged:
            self._take(digest, known, values)

    def recalled(self, digest: str, before: Known, values: Mapping[str, float] | None, *, measured: bool) -> None:
        """A trial of an earlier run had the second seed of a candidate; ``measured`` says that it ended as one."""
        self._rule.give(digest)
        if measured:
            self._take(digest, before, values)

    def _take(self, digest: str, known: Known, values: Mapping[str, float] | None) -> None:
        known.seeds, known.values = self._problem.seeds_with_second, values
        known.state = "failed" if values is None else "measured"
        self._sampler.scored_again(digest, values, seeds=len(known.seeds))
