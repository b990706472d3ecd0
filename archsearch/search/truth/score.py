"""Scores of replayed searches: what their fronts dominate of the truth, and what of them fresh seeds do not confirm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Values
from archsearch.search.truth.case import Case
from archsearch.search.truth.replay import Trained

REACHED = 0.95
"""The share of the true hypervolume that trials are counted to."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One search against the truth; lists have an entry a trial.

    ``own`` is the share of the true hypervolume by the values that the search saw: validation, its own seeds.
    ``fresh`` takes the front that the search would have answered with, and the values of its points on the seeds that it
    has not seen, on test, beside all that those seeds dominate; NaN where the table has no other seed.
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


def score(case: Case, trained: Sequence[Trained], *, unseen: Sequence[int] | None = None) -> Score:
    """The score of the trials of a search, of which a candidate may have several with different seeds.

    ``unseen`` are the seeds of the table that count as fresh; left out, those that no trial was trained with.
    """
    seen = sorted({one.seed for one in trained})
    unseen = [seed for seed in case.seeds if seed not in seen] if unseen is None else list(unseen)
    pool = {arch.digest: index for index, arch in enumerate(case.feasible)}
    digests = list(pool)
    by_seed = {seed: case.losses(digests, [seed], "validation") for seed in seen}
    true_own = case.volume(by_seed[trained[0].seed]) if trained else math.nan
    fresh_losses = case.losses(digests, unseen, "test") if unseen else None
    true_fresh = case.volume(fresh_losses) if fresh_losses is not None else math.nan
    seeds_of: dict[int, list[int]] = {}
    front: list[int] = []
    own, fresh = [], []
    for trial in trained:
        if not trial.stopped:
            seeds_of.setdefault(pool[trial.digest], []).append(trial.seed)
            front = _front(seeds_of, by_seed)
            volumes = _volumes(case, front, seeds_of, by_seed, fresh_losses)
        own.append(volumes[0] / true_own if seeds_of else 0.0)
        fresh.append(volumes[1] / true_fresh if seeds_of else 0.0)
    lost = _lost(front, fresh_losses)
    return Score(
        own=tuple(own),
        fresh=tuple(fresh),
        steps=tuple(int(total) for total in np.cumsum([trial.steps for trial in trained])),
        unconfirmed=sum(lost.values()) / len(lost) if lost else math.nan,
        best_unconfirmed=_best_lost(case, front, seeds_of, by_seed, lost),
        front=tuple(digests[index] for index in front),
    )


def _means(held: Sequence[int], seeds_of: dict[int, list[int]], by_seed: dict[int, Values]) -> Values:
    return np.array([np.mean([by_seed[seed][index] for seed in seeds_of[index]], axis=0) for index in held])


def _front(seeds_of: dict[int, list[int]], by_seed: dict[int, Values]) -> list[int]:
    """The candidates, by their place in the pool, that nothing which was tried dominates, by means over their seeds."""
    held = list(seeds_of)
    values = _means(held, seeds_of, by_seed)
    kept = non_dominated(values) & np.isfinite(values).all(axis=1)
    return [index for index, stands in zip(held, kept, strict=True) if stands]


def _volumes(
    case: Case,
    front: list[int],
    seeds_of: dict[int, list[int]],
    by_seed: dict[int, Values],
    fresh: Values | None,
) -> tuple[float, float]:
    if not front:
        return 0.0, 0.0
    return case.volume(_means(front, seeds_of, by_seed)), math.nan if fresh is None else case.volume(fresh[front])


def _lost(front: list[int], fresh: Values | None) -> dict[int, bool]:
    """Whether a point of the front loses its place there once each has its value of fresh seeds, or has none."""
    if fresh is None or not front:
        return {}
    stands = non_dominated(fresh[front]) & np.isfinite(fresh[front]).all(axis=1)
    return {index: not stays for index, stays in zip(front, stands, strict=True)}


def _best_lost(
    case: Case, front: list[int], seeds_of: dict[int, list[int]], by_seed: dict[int, Values], lost: dict[int, bool]
) -> float:
    if not lost:
        return math.nan
    measured = next(index for index, one in enumerate(case.problem.objectives) if not one.is_cost)
    values = _means(front, seeds_of, by_seed)[:, measured]
    return float(lost[front[int(np.argmin(values))]])


@dataclass(frozen=True, kw_only=True)
class Middle:
    """A median over searches with the interval that holds it in 95 of 100 such studies."""

    median: float
    low: float
    high: float


def middle(values: Sequence[float]) -> Middle:
    """By order statistics, which ask nothing of the distribution and allow for searches that never got there, whose value
    is infinite (Conover, Practical Nonparametric Statistics, 3.2). Fewer than six values bound nothing: their
    interval is the range of what may be."""
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
