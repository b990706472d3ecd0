"""Hypervolume: how much of the space of objectives a front dominates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from archsearch.analysis.front import eligible, non_dominated
from archsearch.analysis.objectives import Objectives, Values, losses, signs
from archsearch.errors import SpecError

Reference = Mapping[str, float]
_MARGIN = 0.1


def hypervolume(points: pd.DataFrame, objectives: Objectives, reference: Reference | None = None) -> float:
    """The volume that the eligible points dominate, up to `reference` (objective to value); 0.0 without any.

    The unit is the product of the objectives' units. Without a reference it is `reference_point`'s, and volumes of
    different searches cannot be compared. Points that are not better than the reference in every objective add nothing.
    """
    values = _eligible_losses(points, objectives)
    if not len(values):
        return 0.0
    return _within(values, _reference_losses(values, objectives, reference))


def hypervolume_over_trials(
    points: pd.DataFrame, objectives: Objectives, reference: Reference | None = None, *, most: int | None = None
) -> pd.DataFrame:
    """The volume after each eligible candidate, in the order of their first trials; after `most` of them, evenly
    chosen with the last among them, where there are more.

    Columns: `number` (of the first trial), `trial`, and `hypervolume` against one reference for all, which is
    `reference` or `reference_point`'s.
    """
    ordered = points[eligible(points, objectives)].sort_values("number", kind="stable")
    values = losses(ordered, objectives)
    last = np.arange(len(values))
    if most is not None and len(values) > most:
        last = np.linspace(0, len(values), most + 1)[1:].astype(int) - 1
    volumes = np.zeros(len(last))
    if len(values):
        edge = _reference_losses(values, objectives, reference)
        held, begin = values[:0], 0
        for index, end in enumerate(last.tolist()):
            fresh = values[begin : end + 1]
            beaten = np.all(held <= fresh[:, None], axis=2).any(axis=1)
            fresh = fresh[~beaten]
            begin = end + 1
            if not len(fresh):
                volumes[index] = volumes[index - 1]
                continue
            held = np.vstack([held, fresh])
            held = held[non_dominated(held)]
            volumes[index] = _within(held, edge)
    return ordered[["number", "trial"]].iloc[last].assign(hypervolume=volumes).reset_index(drop=True)


def reference_point(points: pd.DataFrame, objectives: Objectives) -> dict[str, float]:
    """The worst value of each objective among the eligible points, a tenth of the range further; empty without any."""
    values = _eligible_losses(points, objectives)
    if not len(values):
        return {}
    edge = _default_edge(values) * signs(objectives)
    return {objective.name: float(value) for objective, value in zip(objectives, edge, strict=True)}


def volume(values: Values, edge: Values) -> float:
    """The exact volume that `values` `[n, d]` (less is better) dominate below `edge` `[d]`, all being below it.

    Slices along the last objective, each as deep as the gap to the next point, down to two objectives.
    """
    if len(values) == 0:
        return 0.0
    if values.shape[1] == 1:
        return float(edge[0] - values.min())
    if values.shape[1] == 2:
        return _area(values, edge)
    values = values[non_dominated(values)]
    values = values[np.argsort(values[:, -1], kind="stable")]
    depths = np.diff(np.append(values[:, -1], edge[-1]))
    slices = (depth * volume(values[: index + 1, :-1], edge[:-1]) for index, depth in enumerate(depths) if depth > 0)
    return float(sum(slices))


def _area(values: Values, edge: Values) -> float:
    """From left to right, each step as wide as the gap to the next point and as high as the lowest so far."""
    values = values[np.argsort(values[:, 0], kind="stable")]
    widths = np.diff(np.append(values[:, 0], edge[0]))
    heights = edge[1] - np.minimum.accumulate(values[:, 1])
    return float(widths @ heights)


def _eligible_losses(points: pd.DataFrame, objectives: Objectives) -> Values:
    return losses(points[eligible(points, objectives)], objectives)


def _within(values: Values, edge: Values) -> float:
    inside = values[(values < edge).all(axis=1)]
    return volume(inside, edge)


def _reference_losses(values: Values, objectives: Objectives, reference: Reference | None) -> Values:
    if reference is None:
        return _default_edge(values)
    missing = [objective.name for objective in objectives if objective.name not in reference]
    if missing:
        raise SpecError(f'the reference point has no value for "{missing[0]}": give one for each objective')
    return np.array([reference[objective.name] for objective in objectives]) * signs(objectives)


def _default_edge(values: Values) -> Values:
    worst, spread = values.max(axis=0), np.ptp(values, axis=0)
    edge: Values = worst + _MARGIN * np.where(spread > 0, spread, np.maximum(np.abs(worst), 1.0))
    return edge
