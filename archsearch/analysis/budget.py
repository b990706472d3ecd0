"""Budgets: the best candidate within limits, the one after it, and whether seeds can tell the two apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from archsearch.analysis.differences import Difference, difference, seed_noise
from archsearch.analysis.front import eligible
from archsearch.analysis.objectives import Objectives, losses

Row = Mapping[Hashable, Any]


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The ``best`` of ``candidates`` within the limits and the ``next`` one, as rows of `points`; None for none.

    ``lead`` is the best's value less the next one's, None where there is no next one.
    """

    candidates: int
    best: Row | None
    next: Row | None
    lead: Difference | None


def best_within(
    points: pd.DataFrame, values: pd.DataFrame, objectives: Objectives, name: str, limits: Mapping[str, float]
) -> Pick:
    """The eligible candidate that is best in the measured objective `name` among those with values up to `limits`.

    `values` are the metrics of `points`' trials by seed, as in the store's frames. Of equal candidates the one
    comes first that is better in the other objectives, in their order.
    """
    chosen = points[eligible(points, objectives)]
    for limited, limit in limits.items():
        chosen = chosen[chosen[limited] <= limit]
    first = [objective for objective in objectives if objective.name == name]
    rest = [objective for objective in objectives if objective.name != name]
    keys = losses(chosen, [*first, *rest])
    rows: list[Row] = [*chosen.iloc[np.lexsort(keys.T[::-1])[:2]].to_dict("records")]
    best, after = (rows[0] if rows else None), (rows[1] if len(rows) > 1 else None)
    lead = None
    if best is not None and after is not None:
        metric, noise = first[0].metric, seed_noise(points, name)
        lead = difference(_by_seed(values, after, metric), _by_seed(values, best, metric), noise)
    return Pick(candidates=len(chosen), best=best, next=after, lead=lead)


def _by_seed(values: pd.DataFrame, row: Row, metric: str) -> dict[int, float]:
    mine = values[(values["trial"] == row["trial"]) & (values["name"] == metric)]
    mine = mine[(mine["split"] == "test") & mine["seed"].notna()]
    return {int(seed): float(value) for seed, value in zip(mine["seed"], mine["value"], strict=True)}
