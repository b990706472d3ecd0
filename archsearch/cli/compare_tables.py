"""The tables of a comparison, a task each, and what their reader must know."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from archsearch.cli.matching import apart, matching_table
from archsearch.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from archsearch.analysis.comparison import Compared, Comparison
    from archsearch.analysis.scores import Score
    from archsearch.analysis.speed import Timed
    from archsearch.search.matching import Matching


_TIMED = {"tokens_to_half": ">to half", "tokens_to_95": ">to 95%"}
"""Columns by metric of speed."""


def _table(found: Comparison, task: str) -> Any:
    rows = found.ordered(task)
    costs = list(dict.fromkeys(name for row in rows for name in row.costs))
    own_steps = len({row.scores[task].steps for row in rows}) > 1
    trained = [">steps", ">training"] if own_steps else []
    shown = (*trained, *(f">{cost}" for cost in costs))
    timed = any(task in row.speeds for row in rows)
    soon = _TIMED.values() if timed else ()
    columns = ["pattern", f">{rows[0].scores[task].metric}", ">seeds", ">difference", "", *soon, ">rate", *shown, ""]
    cells = (_cells(row, task, costs, found, trained=bool(trained), timed=timed) for row in rows)
    return table(columns, cells, title=f"{task}, on test")


def _cells(row: Compared, task: str, costs: list[str], found: Comparison, *, trained: bool, timed: bool) -> list[str]:
    from archsearch.costs import CostTerm
    from archsearch.units import format_quantity

    score = row.scores[task]
    shown = [
        format_quantity(row.costs[name], unit=CostTerm.parse(name, context=1).unit) if name in row.costs else ""
        for name in costs
    ]
    rate = "" if score.rates.best is None else f"{score.rates.best:g}"
    return [
        row.pattern,
        _plus_minus(score),
        str(len(score.values)),
        *(("baseline", "") if row is found.baseline else _difference(score)),
        *([_soon(row.speeds.get(task, {}).get(metric)) for metric in _TIMED] if timed else ()),
        rate,
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
    """How soon a target was reached, in tokens: of how many seeds where not of all."""
    from archsearch.analysis.objectives import format_tokens

    if found is None:
        return ""
    if found.tokens is None:
        return format_tokens(2 * found.budget, found.budget)
    text = format_tokens(found.tokens, found.budget)
    return text if found.arrived == found.seeds else f"{text} ({found.arrived} of {found.seeds} seeds)"


def _plus_minus(score: Score) -> str:
    if not isfinite(score.mean):
        return "none"
    return f"{score.mean:.3f}" + (f" ± {score.error:.3f}" if isfinite(score.error) else "")


def _difference(score: Score) -> tuple[str, str]:
    """The difference with its bounds, and what it says."""
    if score.against is None or not isfinite(score.against.mean):
        return "", ""
    bounds = f" ({score.against.low:+.3f}..{score.against.high:+.3f})" if isfinite(score.against.low) else ""
    return f"{score.against.mean:+.3f}{bounds}", score.verdict


def remarks(found: Comparison) -> Iterator[str]:
    """What a reader of the tables must know, a sentence each."""
    scores = [score for row in found.rows for score in row.scores.values()]
    stopped = [row for row in found.rows if any(score.diverged for score in row.scores.values())]
    fewest = min(
        (len(score.values) for row in found.rows if row not in stopped for score in row.scores.values()), default=3
    )
    yield (
        f"differences are from {found.baseline.pattern}, of the same seed, with 95% bounds; better and worse are those "
        f"that chance alone gives in any of {found.comparisons} comparisons less often than once in 20"
    )
    if fewest < 3:
        yield f"{fewest} seed{'s' if fewest != 1 else ''} tell little: recipe.seeds = 3 or more shows the noise"
    for row in stopped:
        where = next(task for task, score in row.scores.items() if score.diverged)
        yield f"{row.pattern} was given up where a seed diverged on {where}: it may lack later runs on every task"
    if any(row.speeds for row in found.rows):
        yield (
            "to half and to 95% are the tokens until validation first has so much of what full attention gains in all, "
            "with the same seed; between two looks the way is a straight line"
        )
    ends = {score.rates.at_end for score in scores} - {""}
    if ends:
        yield (
            f"some are best at the {' or '.join(sorted(ends))} of the learning rates: a wider "
            "recipe.learning_rates may move them"
        )
    for pattern, state, reason in found.waiting:
        yield f"not compared: {pattern} is {state}" + (f": {reason}" if reason else "")


def print_comparison(found: Comparison, out: Console, matching: Matching | None = None, untold: str = "") -> None:
    """The tables and remarks on `out`, with how the architectures were matched, or why that is not known."""
    if matching is not None:
        out.print(matching_table(matching))
    for task in found.tasks:
        out.print(_table(found, task))
    said = [*remarks(found), *(apart(found, matching) if matching is not None else ()), *([untold] if untold else ())]
    for line in said:
        out.print(line, soft_wrap=True)
