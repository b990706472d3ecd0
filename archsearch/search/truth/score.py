"""Scores of replayed searches: what their fronts dominate of the truth, and what of them fresh seeds do not confirm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Values
from archsearch.search.truth.archive import Archive, Trained
from archsearch.search.truth.case import Case

REACHED = 0.95
"""The share of the true hypervolume that trials are counted to."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One search against the truth; lists have an entry a trial.

    ``own`` is the share of the true hypervolume by the values that the search saw: validation, its own seed, the first.
    ``fresh`` takes the front that the search would have answered with, and the values of its points on the seeds that
    it has not seen, on test, beside all that those seeds dominate; NaN where the table has no other seed.
    ``unconfirmed`` is the share of the last front's points that lose their place by fresh seeds, as the confirmation of
    a search takes points off its front, and ``best_unconfirmed`` says so of the one that is best by the first measured
    objective.
    """

    own: tuple[float, ...]
    fresh: tuple[float, ...]
    steps: tuple[int, ...]
    unconfirmed: float
    best_unconfirmed: float
    front: tuple[str, ...]

    def trials_to(self, share: float, *, fresh: bool = False) -> float:
        """The first trial after which the share is reached; infinite where it is not."""
        values = self.fresh if fresh else self.own
        return float(next((trial for trial, value in enumerate(values, 1) if value >= share), math.inf))


def score(case: Case, trained: Sequence[Trained], *, unseen: Sequence[int]) -> Score:
    """The score of the trials of a search, of which a candidate may have several with different seeds; ``unseen`` are
    the seeds of the table that count as fresh."""
    archive = Archive(case)
    fresh_losses = (
        dict(zip(archive.digests, case.losses(archive.digests, unseen, "test"), strict=True)) if unseen else {}
    )
    true_own = case.true_volume(trained[0].seeds, "validation") if trained else math.nan
    true_fresh = case.true_volume(unseen, "test") if unseen else math.nan
    own, fresh = [], []
    for trial in trained:
        if archive.add(trial):
            points = archive.points
            seen = _share(case.volume(archive.losses(points, seeds=trained[0].seeds)), true_own)
            found = case.volume(np.array([fresh_losses[digest] for digest in points])) if unseen and points else 0.0
        own.append(seen if archive.seeds else 0.0)
        fresh.append(_share(found, true_fresh) if archive.seeds else 0.0)
    lost = _lost(archive.points, fresh_losses)
    return Score(
        own=tuple(own),
        fresh=tuple(fresh),
        steps=tuple(int(total) for total in np.cumsum([trial.steps for trial in trained])),
        unconfirmed=sum(lost.values()) / len(lost) if lost else math.nan,
        best_unconfirmed=float(lost[archive.best()]) if lost else math.nan,
        front=tuple(archive.points),
    )


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


@dataclass(frozen=True, kw_only=True)
class Middle:
    """A median over searches with the interval that holds it in 95 of 100 such studies."""

    median: float
    low: float
    high: float


def middle(values: Sequence[float]) -> Middle:
    """By order statistics, which ask nothing of the distribution and allow for searches that never got there, whose
    value is infinite (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six values bound nothing: their
    interval is endless."""
    ordered = np.sort([value for value in values if not math.isnan(value)])
    count = len(ordered)
    if not count:
        return Middle(median=math.nan, low=math.nan, high=math.nan)
    rank = int(binom.ppf(0.025, count, 0.5))
    bounded = rank >= 1
    return Middle(
        median=float((ordered[(count - 1) // 2] + ordered[count // 2]) / 2),
        low=float(ordered[rank - 1]) if bounded else -math.inf,
        high=float(ordered[count - rank]) if bounded else math.inf,
    )
