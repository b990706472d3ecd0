"""Axes: which objectives a drawing is over, what is written on an axis, and its round values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archsearch.errors import SpecError, listing, nearest
from archsearch.units import format_quantity

if TYPE_CHECKING:
    from archsearch.analysis.answer import Answer
    from archsearch.analysis.objectives import Objective

_BEYOND = 0.05
_DECADE = 8.0
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""


def choose_axes(answer: Answer, x: str | None, y: str | None) -> tuple[Objective, Objective]:
    """The objectives to draw: those named, else the first that is minimised across and maximised upwards.

    Raises `SpecError` for a name that is no objective of the search.
    """
    objectives = {objective.name: objective for objective in answer.objectives}
    for given in (x, y):
        if given is not None and given not in objectives:
            raise SpecError(
                f'"{given}" is no objective of {answer.search.name}{nearest(given, objectives)}: '
                f"it has {listing(objectives)}"
            )
    ordered = list(objectives.values())
    falling = [objective for objective in ordered if objective.direction == "minimize"]
    rising = [objective for objective in ordered if objective.direction == "maximize"]
    across = objectives[x] if x else next((item for item in [*falling, *ordered] if item.name != y), ordered[0])
    rest = [item for item in [*rising, *ordered] if item is not across]
    return across, objectives[y] if y else (rest or ordered)[0]


def axis_label(objective: Objective) -> str:
    """An objective with its context and whether less or more is better."""
    context = f" at {objective.context:,} tokens" if objective.context else ""
    measured = "" if objective.is_cost else " (test)"
    return f"{objective.name.partition('@')[0] if context else objective.name}{context}{measured}"


def spans_decades(values: Sequence[float]) -> bool:
    """Whether `values` want a logarithmic axis: all above 0, and far apart."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= _DECADE


def ticks(values: Sequence[float], *, unit: str, log: bool, most: int = 6) -> dict[float, str]:
    """At most about `most` round values within the range of `values` (a little beyond where linear), and their text.

    Bytes are round in powers of 2, anything else in 1, 2 and 5 times powers of 10.
    """
    low, high = min(values), max(values)
    if low == high:
        return {low: _written(low, unit)}
    found = _log_ticks(low, high, unit, most) if log else _linear_ticks(low, high, unit, most)
    return {value: _written(value, unit) for value in found}


def _log_ticks(low: float, high: float, unit: str, most: int) -> list[float]:
    base = 2.0 if unit == "bytes" else 10.0
    first, last = math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9)
    powers = [base**power for power in range(first, last + 1)]
    if len(powers) < 3 and base == 10.0:
        decades = range(first - 1, last + 1)
        powers = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high]
    return powers[:: -(-len(powers) // most) or 1] or [low, high]


def _linear_ticks(low: float, high: float, unit: str, most: int) -> list[float]:
    rough = (high - low) / most
    low, high = low - _BEYOND * (high - low), high + _BEYOND * (high - low)
    if unit == "bytes":
        step = 2.0 ** math.ceil(math.log2(rough))
    else:
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _written(value: float, unit: str) -> str:
    if unit:
        return format_quantity(value, unit=unit)
    return format_quantity(value, unit="") if abs(value) >= 1000 else f"{value:.3g}"
