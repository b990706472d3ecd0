"""Survivors: which candidates are carried up a ladder, by rank and crowding, with the noise of seeds counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from archsearch.analysis.differences import ROUNDING, reach_of, seed_noise
from archsearch.analysis.front import eligible, non_dominated
from archsearch.analysis.objectives import Objective, Objectives, Values, losses


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """``kept`` are digests from the best on, each with why: "front" where no other candidate dominates its means,
    "rank" for one of a later rank, "untold" where it is beyond ``keep`` but noise does not tell it from those within.

    ``cut`` are digests that could not be told apart either and did not fit; ``unknown`` are measured objectives whose
    noise nobody knows, as no candidate has two seeds that differ.
    """

    kept: tuple[tuple[str, str], ...]
    cut: tuple[str, ...]
    unknown: tuple[str, ...]


def survivors(
    points: pd.DataFrame, objectives: Objectives, *, keep: int, at_most: int, without: Sequence[str] = ()
) -> Survivors:
    """The survivors of `analysis.points`; references dominate but are none, and digests of `without` do neither.

    Candidates are sorted into ranks (Deb et al., NSGA-II, IEEE Trans. Evol. Comp. 6, 2002) by means. One dominates
    another *clearly* where, besides, a measured objective is better by more than its 95% band: Student's t, shared out
    among all who could dominate it (Bonferroni), times the pooled deviation of seeds times sqrt(1/n + 1/m). So chance
    puts a candidate clearly behind any of its equals once in 40, however many there are. The first `keep` are taken by
    clear rank, then rank, then crowding; and, up to `at_most`, those that share the clear rank of the last of them.
    Where costs alone differ, and means are equal, domination is clear.
    """
    found = points[eligible(points, objectives) & ~points["digest"].isin(without)].reset_index(drop=True)
    values = losses(found, objectives)
    bands = [_band(points, found, objective) for objective in objectives]
    unknown = tuple(one.name for one, band in zip(objectives, bands, strict=True) if band is None)
    mine = np.flatnonzero((found["kind"] != "reference").to_numpy(dtype=bool))
    if not len(mine):
        return Survivors(kept=(), cut=(), unknown=unknown)
    rank, crowding = _ranks(values), np.zeros(len(found))
    for level in np.unique(rank):
        crowding[rank == level] = crowding_distance(values[rank == level])
    clear = _clear_ranks(values, bands, keep, found)
    order = mine[np.lexsort((found["trial"].to_numpy()[mine], -crowding[mine], rank[mine], clear[mine]))]
    last = clear[order[min(keep, len(order)) - 1]]
    tied = [index for index in order[keep:] if clear[index] == last]
    digests = found["digest"].tolist()
    kept = [(digests[index], "front" if rank[index] == 0 else "rank") for index in order[:keep]]
    kept += [(digests[index], "untold") for index in tied[: at_most - keep]]
    return Survivors(kept=tuple(kept), cut=tuple(digests[index] for index in tied[at_most - keep :]), unknown=unknown)


def crowding_distance(values: Values) -> npt.NDArray[np.float64]:
    """How far the neighbours of each row of a rank lie apart, over all columns, each scaled to its range: `[n]`.

    Infinite for the ends (Deb et al. 2002, section III-B).
    """
    count = len(values)
    distance = np.zeros(count)
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[0]] = distance[order[-1]] = np.inf
        if spread > 0 and count > 2:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def _ranks(values: Values) -> npt.NDArray[np.int64]:
    """The rank of each row by means, from 0."""
    ranks = np.zeros(len(values), dtype=np.int64)
    left, level = np.arange(len(values)), 0
    while len(left):
        best = non_dominated(values[left])
        ranks[left[best]] = level
        left, level = left[~best], level + 1
    return ranks


def _clear_ranks(
    values: Values, bands: Sequence[npt.NDArray[np.float64] | None], keep: int, found: pd.DataFrame
) -> npt.NDArray[np.int64]:
    """The rank of each row where only clear domination counts; rows of no interest, once `keep` are ranked, come
    last together."""
    dominators = [np.flatnonzero(_clearly(values, bands, index)) for index in range(len(values))]
    mine = (found["kind"] != "reference").to_numpy(dtype=bool)
    ranks = np.full(len(values), len(values), dtype=np.int64)
    left, level = np.ones(len(values), dtype=bool), 0
    while left.any() and (mine & ~left).sum() < keep:
        best = np.array([left[index] and not left[dominators[index]].any() for index in range(len(values))])
        ranks[best] = level
        left &= ~best
        level += 1
    return ranks


def _clearly(values: Values, bands: Sequence[npt.NDArray[np.float64] | None], index: int) -> npt.NDArray[np.bool_]:
    """Which rows clearly dominate row `index`: `[n]`."""
    gaps = values[index] - values  # [n, n_objectives], above 0 where the other is better
    dominates = (gaps >= 0).all(axis=1) & (gaps > 0).any(axis=1)
    measured = np.array([band is None or bool(band.any()) for band in bands])
    beyond = np.zeros(len(values), dtype=bool)
    for column, band in enumerate(bands):
        if band is not None and band.any():
            beyond |= gaps[:, column] > np.hypot(band, band[index])
    equal = (gaps[:, measured] == 0).all(axis=1)
    mask: npt.NDArray[np.bool_] = dominates & (beyond | equal)
    return mask


def _band(points: pd.DataFrame, found: pd.DataFrame, objective: Objective) -> npt.NDArray[np.float64] | None:
    """Half the band of each row's mean; those of two rows add up as squares. 0 for costs, None where unknown."""
    if objective.is_cost:
        return np.zeros(len(found))
    noise = seed_noise(points[_shows_noise(points, objective.name)], objective.name)
    if not noise.freedom:
        return None
    counts = found["seeds"].map(len).to_numpy(dtype=np.float64)
    reach = reach_of(noise.freedom, among=len(found) - 1) * noise.deviation
    return np.asarray(reach / np.sqrt(counts), dtype=np.float64)


def _shows_noise(points: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Rows whose seeds differ by more than rounding: equal ones do not say that there is no noise."""
    spread, mean = (points[key].to_numpy(dtype=np.float64, na_value=np.nan) for key in (f"{name}_std", name))
    mask: npt.NDArray[np.bool_] = np.isfinite(spread) & (spread > ROUNDING * np.abs(mean))
    return mask
