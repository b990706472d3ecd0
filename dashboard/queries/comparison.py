"""A comparison as tables and as a sentence: every architecture of a search held against one of them, on one metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd

from archsearch.analysis.compared import Compared, Comparison
from archsearch.analysis.comparison_frame import BASELINE
from archsearch.analysis.matching import MatchingTable
from archsearch.analysis.scores import BETTER, NOISE, UNTOLD, WORSE, Score
from archsearch.analysis.speed import Timed
from archsearch.arch import ArchSpec
from archsearch.costs import CostTerm
from archsearch.errors import ArchsearchError, foreign_code
from archsearch.mixer import Resolver
from archsearch.units import format_quantity

VERDICTS = (BASELINE, BETTER, WORSE, NOISE, UNTOLD)
SOON = {"tokens_to_half": "to half", "tokens_to_95": "to 95%"}
"""Columns by metric of speed."""


def families_of(found: Comparison, resolver: Resolver) -> dict[str, str]:
    """The family of each architecture by its digest: "hybrid" for layers of several, "other" where it is not known."""
    return {row.digest: _family(row.pattern, resolver) for row in found.rows}


def _family(pattern: str, resolver: Resolver) -> str:
    try:
        with foreign_code("the pattern of a trial", "parse"):
            layers = ArchSpec.parse(pattern, resolver).layers
            kinds = {resolver.resolve(layer.mixer).plugin.family for layer in layers}
    except ArchsearchError:
        return "other"
    return kinds.pop() if len(kinds) == 1 else "hybrid"


def verdict(score: Score, *, baseline: bool) -> str:
    """One of `VERDICTS`."""
    return BASELINE if baseline else score.verdict


def comparison_table(
    found: Comparison, name: str, families: Mapping[str, str], flat: Collection[str] = ()
) -> pd.DataFrame:
    """One row an architecture, as `ordered` by a score of that name: the score, its difference from the baseline, and
    costs in words. Of a task's primary metric also what was trained: speed of learning, rates, and steps of its own.

    `flat` are the digests of those whose sparsity never acted, which is said.
    """
    rows = [_row(row, name, found, families) for row in found.ordered(name)]
    for row, of in zip(rows, found.ordered(name), strict=True):
        if of.digest in flat:
            row["notes"] = "; ".join(filter(None, ("sparsity not exercised: it saw all", row["notes"])))
    table = pd.DataFrame(rows)
    if not rows:
        return table
    score = found.score(name)
    unsaid = [] if any(len(row["rates"]) > 1 for row in rows) else ["rates"]
    if not any(score.task in row.speeds for row in found.rows):
        unsaid += SOON.values()
    if len({row["steps"] for row in rows}) == 1:
        unsaid += ["steps", "training"]
    return table.drop(columns=unsaid if score.primary else ["rate", "rates", "steps", "training", *SOON.values()])


def _row(row: Compared, name: str, found: Comparison, families: Mapping[str, str]) -> dict[str, Any]:
    score = row.scores[name]
    against = None if row is found.baseline else score.against
    known = against is not None and isfinite(against.mean)
    bounded = against is not None and isfinite(against.low) and isfinite(against.high)
    return {
        "architecture": row.pattern,
        "family": families.get(row.digest, "other"),
        "score": _or_none(score.mean),
        "error": _or_none(score.error),
        "seeds": len(score.values),
        "difference": against.mean if against is not None and known else None,
        "low": against.low if against is not None and bounded else None,
        "high": against.high if against is not None and bounded else None,
        "verdict": verdict(score, baseline=row is found.baseline),
        **{said: _soon(row.speeds.get(score.task, {}).get(metric)) for metric, said in SOON.items()},
        "rate": score.rates.best,
        "rates": [mean for mean in score.rates.means.values() if isfinite(mean)],
        "steps": score.steps,
        "training": "" if score.train_flops is None else format_quantity(score.train_flops, unit="FLOP", digits=4),
        "notes": "; ".join(score.notes()),
        **{name: _cost(name, value) for name, value in row.costs.items()},
    }


def _soon(found: Timed | None) -> str:
    """Short enough for a narrow column, whose help says that it counts tokens."""
    return "" if found is None else found.told.replace(" tokens", "")


def told(table: pd.DataFrame, score: Score | None = None) -> pd.DataFrame:
    """`comparison_table` as a page shows it: the bounds as one text, tokens of a `score` of speed as people read
    them."""
    tokens = score is not None and score.budget is not None

    def end(value: float) -> str:
        return score.show(value, signed=True) if tokens and score is not None else f"{value:+.4f}"

    bounds = [
        "" if pd.isna(low) or pd.isna(high) else f"{end(low)} to {end(high)}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown = table.drop(columns=["low", "high"])
    shown.insert(list(shown.columns).index("verdict"), "interval", bounds)
    return shown


def _or_none(value: float) -> float | None:
    return value if isfinite(value) else None


def _cost(name: str, value: float) -> str:
    try:
        return format_quantity(value, unit=CostTerm.parse(name, context=1).unit)
    except ArchsearchError:
        return f"{value:.6g}"


def summary(found: Comparison, name: str) -> str:
    """How many differ from the baseline on a metric, in a sentence."""
    held = [row.scores[name] for row in found.others if name in row.scores]
    if not held:
        return (
            f"Nothing but {found.baseline.pattern} is measured on {name} so far: there is nothing to hold against it."
        )
    words = [verdict(score, baseline=False) for score in held]
    parts = [f"{words.count(kind)} {kind}" for kind in (BETTER, WORSE, NOISE) if kind in words]
    if UNTOLD in words:
        parts.append(f"nothing tells of {words.count(UNTOLD)}")
    count = f"{len(held)} architecture{'s' if len(held) != 1 else ''}"
    return f"On {name}, {count} against {found.baseline.pattern}: {', '.join(parts)}."


def matching_frame(found: MatchingTable) -> pd.DataFrame:
    """One row an architecture of the list: what it was asked as and what it became, with its figures in words."""
    return pd.DataFrame([found.cells(row) for row in found.rows])


def waiting_table(found: Comparison) -> pd.DataFrame:
    """The architectures that are not measured yet or will not be, and why."""
    return pd.DataFrame(found.waiting, columns=["architecture", "state", "reason"])


def baselines(found: Comparison) -> dict[str, str]:
    """The architectures that may be the baseline: patterns by digest, in the order in which they were drawn."""
    rows: Sequence[Compared] = sorted(found.rows, key=lambda row: row.trial)
    return {row.digest: row.pattern for row in rows}
