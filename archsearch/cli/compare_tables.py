"""The tables of a comparison, a metric each, and what their reader must know."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from archsearch.cli.matching import matching_table
from archsearch.cli.output import table

if TYPE_CHECKING:
    from rich.console import Console

    from archsearch.analysis.compared import Compared, Comparison
    from archsearch.analysis.scores import Score
    from archsearch.analysis.speed import Timed


_TIMED = {"tokens_to_half": ">to half", "tokens_to_95": ">to 95%"}
"""Columns by metric of speed."""


def _table(found: Comparison, name: str) -> Any:
    """Of a task's primary metric also what its trainings were, which holds for the further ones."""
    rows = found.ordered(name)
    score = found.score(name)
    costs = list(dict.fromkeys(cost for row in rows for cost in row.costs))
    trained = score.primary and len({row.scores[name].steps for row in rows}) > 1
    timed = score.primary and any(score.task in row.speeds for row in rows)
    columns = [
        "pattern",
        f">{score.metric}",
        ">seeds",
        ">difference",
        "",
        *(_TIMED.values() if timed else ()),
        *([">rate"] if score.primary else []),
        *([">steps", ">training"] if trained else []),
        *(f">{cost}" for cost in costs),
        "",
    ]
    cells = (_cells(row, name, costs, found, trained=trained, timed=timed) for row in rows)
    return table(columns, cells, title=f"{name}, {'tokens' if score.budget is not None else 'on test'}")


def _cells(row: Compared, name: str, costs: list[str], found: Comparison, *, trained: bool, timed: bool) -> list[str]:
    from archsearch.costs import CostTerm
    from archsearch.units import format_quantity

    score = row.scores[name]
    shown = [
        format_quantity(row.costs[cost], unit=CostTerm.parse(cost, context=1).unit) if cost in row.costs else ""
        for cost in costs
    ]
    rate = "" if score.rates.best is None else f"{score.rates.best:g}"
    return [
        row.pattern,
        _plus_minus(score),
        str(len(score.values)),
        *(("baseline", "") if row is found.baseline else _difference(score)),
        *([_soon(row.speeds.get(score.task, {}).get(metric)) for metric in _TIMED] if timed else ()),
        *([rate] if score.primary else []),
        *(_training(score) if trained else ()),
        *shown,
        "; ".join(score.notes()),
    ]


def _training(score: Score) -> tuple[str, str]:
    """The optimiser steps of one run and the FLOPs that they take."""
    from archsearch.units import format_quantity

    flops = "" if score.train_flops is None else format_quantity(score.train_flops, unit="FLOP", digits=4)
    return "" if score.steps is None else str(score.steps), flops


def _soon(found: Timed | None) -> str:
    return "" if found is None else found.told


def _plus_minus(score: Score) -> str:
    return score.show(score.mean) + (f" ± {score.show(score.error)}" if isfinite(score.error) else "")


def _difference(score: Score) -> tuple[str, str]:
    """The difference with its bounds, and what it says."""
    against = score.against
    if against is None or not isfinite(against.mean):
        return "", ""
    ends = [score.show(end, signed=True) for end in (against.low, against.high)]
    bounds = f" ({'..'.join(ends)})" if isfinite(against.low) else ""
    return f"{score.show(against.mean, signed=True)}{bounds}", score.verdict


def print_comparison(found: Comparison, out: Console) -> None:
    """How the architectures were matched, the tables and the remarks, on `out`."""
    from archsearch.analysis.comparison_words import not_compared, remarks

    if found.matching is not None:
        out.print(matching_table(found.matching))
    for name in found.scored:
        out.print(_table(found, name))
    for line in (*remarks(found), *not_compared(found)):
        out.print(line, soft_wrap=True)
