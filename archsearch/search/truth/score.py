"""Scores of replayed searches: what their fronts dominate of the truth, and what of them fresh seeds do not confirm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Values
from archsearch.search.truth.archive import Archive, Trained
from archsearch.search.truth.case import Case

REACHED = 0.95
"""The share of the true hypervolume that trials are counted to."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One search against the truth; lists have an entry a trial, and may go on beyond the search's answer.

    ``own`` is the share of the true hypervolume by the values that the search saw: validation, its own seed, the first.
    ``fresh`` takes the front that the search would have answered with, and the values of its points on the seeds that
    it has not seen, on test, beside all that those seeds dominate; NaN where the table has no other seed. ``limit`` is
    that share of the front of all architectures: no more than this is known by the search's own seed.
    ``unconfirmed`` is the share of the answer's points that lose their place by fresh seeds, as the confirmation of
    a search takes points off its front, and ``best_unconfirmed`` says so of the one that is best by the first measured
    objective; ``steps`` are those of all trials up to the answer.
    """

    own: tuple[float, ...]
    fresh: tuple[float, ...]
    limit: float
    steps: int
    unconfirmed: float
    best_unconfirmed: float
    front: tuple[str, ...]

    @property
    def to_own(self) -> float:
        """The first trial after which 95% of the true hypervolume is found by the search's own seed; infinite where it
        is not."""
        return _first(self.own, REACHED)

    @property
    def to_fresh(self) -> float:
        """The same by fresh seeds, which may be never reached though all is trained."""
        return _first(self.fresh, REACHED)

    @property
    def to_limit(self) -> float:
        """The first trial after which fresh seeds have 95% of ``limit``; NaN where there are none."""
        return math.nan if math.isnan(self.limit) else _first(self.fresh, REACHED * self.limit)


def _first(shares: Sequence[float], least: float) -> float:
    return float(next((trial for trial, share in enumerate(shares, 1) if share >= least - 1e-12), math.inf))


class Scoring:
    """The score of a search as its trials come: of a candidate it may have several with different seeds.

    ``unseen`` are the seeds of the table that count as fresh, and the answer is the front after so many ``trials``, or
    the last one.
    """

    def __init__(self, case: Case, *, unseen: Sequence[int], trials: float = math.inf) -> None:
        self._case, self._unseen, self._trials = case, tuple(unseen), trials
        self._archive = Archive(case)
        self._fresh_losses: Mapping[str, Values] = {}
        if unseen:
            losses = case.losses(self._archive.digests, unseen, "test")
            self._fresh_losses = dict(zip(self._archive.digests, losses, strict=True))
        self._seeds: tuple[int, ...] = ()
        self._limit = math.nan
        self._own: list[float] = []
        self._fresh: list[float] = []
        self._steps = 0
        self._front: tuple[str, ...] = ()
        self._best = ""

    def add(self, trial: Trained) -> None:
        """Takes the next trial in."""
        if not self._seeds:
            self._seeds = trial.seeds
            front = self._case.true_front(self._seeds, "validation")
            self._limit = self._of_fresh([arch.digest for arch in front])
        own, fresh = (self._own or [0.0])[-1], (self._fresh or [0.0])[-1]
        if self._archive.add(trial):
            points = self._archive.points
            seen = self._case.volume(self._archive.losses(points, seeds=self._seeds))
            own = _share(seen, self._case.true_volume(self._seeds, "validation"))
            fresh = self._of_fresh(points)
        self._own.append(own)
        self._fresh.append(fresh if self._unseen else math.nan)
        if len(self._own) <= self._trials:
            self._steps += trial.steps
            self._front = tuple(self._archive.points)
            self._best = self._archive.best() if self._front else ""

    @property
    def arrived(self) -> bool:
        """Whether nothing that is counted can come any more: the answer is given, and each share that can be reached
        is."""
        if len(self._own) < self._trials or self._own[-1] < REACHED:
            return False
        wanted = REACHED if self._limit >= REACHED else REACHED * self._limit
        return math.isnan(self._limit) or _first(self._fresh, wanted) < math.inf

    def score(self) -> Score:
        """That of the trials so far."""
        lost = _lost(self._front, self._fresh_losses)
        return Score(
            own=tuple(self._own),
            fresh=tuple(self._fresh),
            limit=self._limit,
            steps=self._steps,
            unconfirmed=sum(lost.values()) / len(lost) if lost else math.nan,
            best_unconfirmed=float(lost[self._best]) if lost else math.nan,
            front=self._front,
        )

    def _of_fresh(self, points: Sequence[str]) -> float:
        if not self._unseen:
            return math.nan
        found = self._case.volume(np.array([self._fresh_losses[digest] for digest in points])) if points else 0.0
        return _share(found, self._case.true_volume(self._unseen, "test"))


def score(case: Case, trained: Sequence[Trained], *, unseen: Sequence[int]) -> Score:
    """The score of a search that is over; ``unseen`` are the seeds of the table that count as fresh."""
    scoring = Scoring(case, unseen=unseen)
    for trial in trained:
        scoring.add(trial)
    return scoring.score()


def _share(found: float, whole: float) -> float:
    """All of it, where there is nothing to be found."""
    return found / whole if whole else 1.0


def _lost(points: Sequence[str], fresh: Mapping[str, Values]) -> dict[str, bool]:
    """Whether a point of a front loses its place there once each has its value of fresh seeds, or has none."""
    if not fresh or not points:
        return {}
    values = np.array([fresh[digest] for digest in points])
    stands = non_dominated(values) & np.isfinite(values).all(axis=1)
    return {digest: not stays for digest, stays in zip(points, stands, strict=True)}
