"""Objectives as the store keeps them: names, the metrics behind them, and values turned so that less is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from archsearch.costs import MEASURES
from archsearch.errors import SpecError
from archsearch.units import format_quantity

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord

Objectives = Sequence[Mapping[str, Any]]
"""One mapping an objective: "name" (the column), "direction" ("minimize" or "maximize"), and "metric", the name under
which its values are stored where that is another ("state_bytes@32768")."""

Values = npt.NDArray[np.float64]


def metric_name(objective: Mapping[str, Any]) -> str:
    """The name of the metric that holds the objective's values."""
    return str(objective.get("metric") or objective["name"])


def signs(objectives: Objectives) -> Values:
    """1 for each objective to be minimised, -1 for each to be maximised: `[n_objectives]`."""
    directions = [objective["direction"] for objective in objectives]
    unknown = [direction for direction in directions if direction not in ("minimize", "maximize")]
    if unknown:
        raise SpecError(f'"{unknown[0]}" is no direction of an objective: it is minimize or maximize')
    if not directions:
        raise SpecError("there is no objective to compare by: give at least one")
    return np.array([1.0 if direction == "minimize" else -1.0 for direction in directions])


def losses(points: pd.DataFrame, objectives: Objectives) -> Values:
    """The points' values turned so that less is better: `[n_points, n_objectives]`, NaN where there is none."""
    names = [str(objective["name"]) for objective in objectives]
    return points[names].to_numpy(dtype=np.float64, na_value=np.nan) * signs(objectives)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective; ``metric`` is the name under which its values are stored, a cost's with its context."""

    name: str
    direction: str
    unit: str
    metric: str

    @property
    def is_cost(self) -> bool:
        """Whether it follows from the architecture alone."""
        return self.metric.partition("@")[0] in MEASURES

    @property
    def context(self) -> int | None:
        """The context in tokens that a cost is taken at."""
        return int(self.metric.rpartition("@")[2]) if self.is_cost else None

    def show(self, value: float) -> str:
        """A value as people read it."""
        if value != value:
            return "-"
        return format_quantity(value, unit=self.unit) if self.is_cost else f"{value:.3f}"


def objectives_of(search: SearchRecord) -> list[Objective]:
    """The objectives that a search was stored with, in the order of its spec."""
    return [
        Objective(
            name=str(given["name"]),
            direction=str(given["direction"]),
            unit=str(given.get("unit") or ""),
            metric=str(given.get("metric") or given["name"]),
        )
        for given in search.objectives
    ]
