"""The archive of a replayed search: what was trained with which seeds, and the front of it by what the search saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Values
from archsearch.search.truth.case import Case


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trial that a search paid for: what was trained with which seeds of the table, for how many steps over all tasks
    and seeds, of how many ``in_full``; ``stopped`` says why the rule ended it early."""

    digest: str
    seeds: tuple[int, ...]
    steps: int
    in_full: int = 0
    stopped: str = ""


class Archive:
    """The trials of a search; ``seeds`` are those of each candidate that has values, ``points`` its front by means over
    them, on validation."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.digests = [arch.digest for arch in case.feasible]
        self.seeds: dict[str, list[int]] = {}
        self.points: list[str] = []
        self._means: dict[str, Values] = {}
        self._by_seed: dict[int, dict[str, Values]] = {}

    def add(self, trial: Trained) -> bool:
        """Takes a trial in; whether it changes anything, as one that was stopped does not."""
        if trial.stopped:
            return False
        held = self.seeds.setdefault(trial.digest, [])
        held.extend(trial.seeds)
        self._means[trial.digest] = self._mean(trial.digest, held)
        self._sort()
        return True

    def losses(self, digests: Sequence[str], seeds: Sequence[int] = ()) -> Values:
        """`[n, n_objectives]`: means over seeds, on validation; left out, those that each was trained with."""
        found = [self._mean(digest, seeds) if seeds else self._means[digest] for digest in digests]
        return np.array(found).reshape(len(digests), len(self._case.problem.objectives))

    def best(self) -> str:
        """The point that is best by the first measured objective."""
        measured = next(index for index, one in enumerate(self._case.problem.objectives) if not one.is_cost)
        return self.points[int(np.argmin(self.losses(self.points)[:, measured]))]

    def _mean(self, digest: str, seeds: Sequence[int]) -> Values:
        found: Values = np.mean([self._seen(digest, seed) for seed in seeds], axis=0)
        return found

    def _seen(self, digest: str, seed: int) -> Values:
        if seed not in self._by_seed:
            values = self._case.losses(self.digests, [seed], "validation")
            self._by_seed[seed] = dict(zip(self.digests, values, strict=True))
        return self._by_seed[seed][digest]

    def _sort(self) -> None:
        held = list(self.seeds)
        values = self.losses(held)
        kept = non_dominated(values) & np.isfinite(values).all(axis=1)
        self.points = [digest for digest, stands in zip(held, kept, strict=True) if stands]
