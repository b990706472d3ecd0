"""Order: whether candidates come out on a card as the model puts them, by Kendall's tau-b."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau

from archsearch.evidence.modelled import Modelled, by_row, geometric
from archsearch.evidence.tuned import Tuned

FEWEST = 3
"""Configurations of a row: of fewer no order is said."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Tau-b between the modelled and the measured times of ``count`` configurations on a ``card``: of one ``row``, or
    of all, each time over that of its row's own configurations. ``tau`` is None where all are equal."""

    row: str
    card: str
    count: int
    tau: float | None


def agreements(modelled: Iterable[Modelled], tuned: Iterable[Tuned]) -> list[Agreement]:
    """Of each row that was tuned with the kernels that were modelled, the order of `FEWEST` configurations at least;
    and over all rows of a card.

    Times are geometric means over sizes. A measurement of other kernels, or of configurations that are not among the
    candidates, counts for nothing.
    """
    rows, found = by_row(modelled), list[Agreement]()
    pooled: dict[str, list[tuple[float, float]]] = {}
    for record in sorted(tuned, key=lambda record: record.identity):
        ones = [one for one in rows.get((record.op, *record.key), []) if one.kernels == record.kernels != ""]
        timed = [one for one in ones if record.seconds.get(one.config)]
        pairs = [(one.mean, geometric(record.seconds[one.config])) for one in timed]
        own = next((pair for one, pair in zip(timed, pairs, strict=True) if not one.config), None)
        if len(pairs) >= FEWEST:
            found.append(_agreement(ones[0].row, record.machine[0], pairs))
        if own is not None:
            ratios = [(bound / own[0], seconds / own[1]) for bound, seconds in pairs]
            pooled.setdefault(record.machine[0], []).extend(ratios)
    return found + [_agreement("all", card, pairs) for card, pairs in pooled.items() if len(pairs) >= FEWEST]


def _agreement(row: str, card: str, pairs: Sequence[tuple[float, float]]) -> Agreement:
    bounds, seconds = zip(*pairs, strict=True)
    tau = float(kendalltau(bounds, seconds, variant="b").statistic)
    return Agreement(row=row, card=card, count=len(pairs), tau=None if math.isnan(tau) else tau)
