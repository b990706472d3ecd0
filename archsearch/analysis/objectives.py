"""Objectives: what candidates are compared by, the metrics behind them, and values turned so that less is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from archsearch.costs import MEASURES
from archsearch.errors import SpecError
from archsearch.units import format_quantity

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord

Direction = Literal["maximize", "minimize"]
Values = npt.NDArray[np.float64]
_MOST_DIGITS = 15


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective by the name that the spec gives it.

    ``metric`` is the name under which its values are stored ("" stands for ``name``): a cost's with its context
    ("state_bytes@32768"). ``budget``, of what counts tokens of a training, is all of them: a value above says that they
    did not suffice. Raises `SpecError` for a direction that is none.
    """

    name: str
    direction: Direction
    unit: str = ""
    metric: str = ""
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("minimize", "maximize"):
            raise SpecError(f'"{self.direction}" is no direction of an objective: it is minimize or maximize')
        if not self.metric:
            object.__setattr__(self, "metric", self.name)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From what the store keeps; all but name and direction may be missing."""
        unit, metric, budget = data.get("unit") or "", data.get("metric") or "", data.get("budget")
        return cls(
            name=str(data["name"]),
            direction=data["direction"],
            unit=str(unit),
            metric=str(metric),
            budget=float(budget) if isinstance(budget, int | float) else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store, which `from_json` reads back."""
        return {key: value for key, value in asdict(self).items() if key != "budget" or value is not None}

    @property
    def is_cost(self) -> bool:
        """Whether it follows from the architecture alone; else it is measured."""
        return self.metric.partition("@")[0] in MEASURES

    @property
    def context(self) -> int | None:
        """The context in tokens that a cost is taken at; None for what is measured, and where it cannot be read."""
        text = self.metric.partition("@")[2]
        readable = self.is_cost and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
        return int(text) if readable else None

    @property
    def sign(self) -> float:
        """1 where less is better, -1 where more is."""
        return 1.0 if self.direction == "minimize" else -1.0

    def show(self, value: float) -> str:
        """A value as people read it."""
        if value != value:
            return "-"
        if self.budget is not None:
            return format_tokens(value, self.budget)
        return format_quantity(value, unit=self.unit) if self.is_cost else f"{value:.3f}"


def format_tokens(value: float, budget: float) -> str:
    """Tokens of a training as people read them; above its budget, that they did not suffice."""
    known = min(value, budget)
    return f"{'not in ' if value > budget else ''}{format_quantity(known, unit='')} tokens"


Objectives = Sequence[Objective]


def objectives_of(search: SearchRecord) -> list[Objective]:
    """The objectives that a search was stored with, in the order of its spec."""
    return [Objective.from_json(given) for given in search.objectives]


def signs(objectives: Objectives) -> Values:
    """1 for each objective to be minimised, -1 for each to be maximised: `[n_objectives]`."""
    if not objectives:
        raise SpecError("there is no objective to compare by: give at least one")
    return np.array([objective.sign for objective in objectives])


def losses(points: pd.DataFrame, objectives: Objectives) -> Values:
    """The points' values turned so that less is better: `[n_points, n_objectives]`, NaN where there is none."""
    names = [objective.name for objective in objectives]
    return points[names].to_numpy(dtype=np.float64, na_value=np.nan) * signs(objectives)
