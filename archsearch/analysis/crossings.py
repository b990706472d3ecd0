"""Cost against context: curves of whole architectures, and the contexts at which two of them change order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from archsearch.arch import ArchSpec
from archsearch.costs import ArchCost, CostModel
from archsearch.errors import SpecError

SHORTEST, LONGEST = 1_000, 10_000_000
"""Tokens over which costs are compared unless told otherwise."""

CURVES: Mapping[str, str] = {
    "kv_bytes": "KV bytes",
    "decode_flops": "FLOPs of a decoded token",
    "traffic": "State bytes moved by a decoded token",
    "prefill_flops": "FLOPs of prefill",
}
"""What is drawn against context: measures of `ArchCost` ("traffic": what decoding reads and writes of the state)."""

CURVE_COLUMNS = ("arch", "context", *CURVES)
"""One row an architecture and context; `arch` is its label."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """From ``context`` tokens on ``dearer`` costs more than ``cheaper``, where shortly before it did not."""

    measure: str
    context: int
    value: float
    cheaper: str
    dearer: str


class CostCurves:
    """Costs of named architectures by context, each computed once."""

    def __init__(self, archs: Mapping[str, ArchSpec], costs: CostModel) -> None:
        self._archs, self._model = dict(archs), costs
        self._known: dict[tuple[str, int], ArchCost] = {}

    def cost(self, name: str, context: int) -> ArchCost:
        """All costs of one architecture at `context` tokens."""
        found = self._known.get((name, context))
        if found is None:
            found = self._known[name, context] = self._model.cost(self._archs[name], context)
        return found

    def value(self, name: str, measure: str, context: int) -> float:
        """One of `CURVES` at `context` tokens."""
        cost = self.cost(name, context)
        if measure == "traffic":
            return cost.decode_read_bytes + cost.decode_written_bytes
        return cost.measure(measure)

    def frame(self, contexts: Sequence[int]) -> pd.DataFrame:
        """`CURVE_COLUMNS` at the given contexts."""
        rows = [
            (name, context, *(self.value(name, measure, context) for measure in CURVES))
            for name in self._archs
            for context in contexts
        ]
        return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))

    def crossings(self, measure: str, contexts: Sequence[int]) -> list[Crossing]:
        """Where two architectures change order, from the shortest context: exact to the token.

        Looked for between neighbours of `contexts`: two crossings between the same neighbours cancel and are not seen.
        """
        found = []
        for first, second in combinations(self._archs, 2):
            for context, sign in sign_changes(partial(self._gap, first, second, measure), contexts):
                cheaper, dearer = (first, second) if sign < 0 else (second, first)
                value = self.value(dearer, measure, context)
                found.append(Crossing(measure=measure, context=context, value=value, cheaper=cheaper, dearer=dearer))
        return sorted(found, key=lambda crossing: crossing.context)

    def _gap(self, first: str, second: str, measure: str, context: int) -> float:
        return self.value(first, measure, context) - self.value(second, measure, context)


def sign_changes(gap: Callable[[int], float], contexts: Sequence[int]) -> list[tuple[int, int]]:
    """The first integers at which `gap` takes the sign opposite to its last one, and that sign (-1 or 1).

    A stretch of zeros in between belongs to the sign before it; one at the start has none, so that the first sign
    after it is a change too: from being equal.
    """
    found = []
    signs = [_sign(gap(context)) for context in contexts]
    last = signs[0] if signs else 0
    for (low, high), sign in zip(pairwise(contexts), signs[1:], strict=True):
        if sign in (0, last):
            continue
        found.append((_first_with(gap, sign, low, high), sign))
        last = sign
    return found


def _first_with(gap: Callable[[int], float], sign: int, low: int, high: int) -> int:
    """The first integer above `low`, up to `high`, at which `gap` has `sign`, as it has at `high`; by bisection."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _sign(gap(middle)) == sign else (middle, high)
    return high


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def log_contexts(shortest: int = SHORTEST, longest: int = LONGEST, *, per_decade: int = 8) -> list[int]:
    """Whole contexts from `shortest` to `longest`, evenly apart on a logarithmic axis.

    Raises `SpecError` unless ``1 <= shortest < longest``.
    """
    if not 1 <= shortest < longest:
        raise SpecError(f"contexts from {shortest} to {longest}: the first must be at least 1 and below the last")
    steps = max(2, round(float(np.log10(longest / shortest)) * per_decade) + 1)
    return sorted({round(float(value)) for value in np.geomspace(shortest, longest, steps)})
