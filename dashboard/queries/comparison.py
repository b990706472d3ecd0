"""A comparison as a table and as sentences: every architecture of a search held against one of them, task by task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd

from archsearch.analysis.comparison import Compared, Comparison
from archsearch.analysis.scores import BETTER, NOISE, UNTOLD, WORSE, Score
from archsearch.arch import ArchSpec
from archsearch.costs import CostTerm
from archsearch.errors import ArchsearchError, foreign_code
from archsearch.mixer import Resolver
from archsearch.units import format_quantity

BASELINE = "baseline"
VERDICTS = (BASELINE, BETTER, WORSE, NOISE, UNTOLD)


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
    found: Comparison, task: str, families: Mapping[str, str], flat: Collection[str] = ()
) -> pd.DataFrame:
    """One row an architecture, as `ordered`: its score, its difference from the baseline, rates, costs in words.

    `flat` are the digests of those whose sparsity never acted, which is said.
    """
    rows = [_row(row, task, found, families) for row in found.ordered(task)]
    for row, of in zip(rows, found.ordered(task), strict=True):
        if of.digest in flat:
            row["notes"] = "; ".join(filter(None, ("sparsity not exercised: it saw all", row["notes"])))
    table = pd.DataFrame(rows)
    several = any(len(row["rates"]) > 1 for row in rows)
    return table if several or not rows else table.drop(columns="rates")


def _row(row: Compared, task: str, found: Comparison, families: Mapping[str, str]) -> dict[str, Any]:
    score = row.scores[task]
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
        "rate": score.rates.best,
        "rates": [mean for mean in score.rates.means.values() if isfinite(mean)],
        **{name: _cost(name, value) for name, value in row.costs.items()},
        "notes": "; ".join(score.notes()),
    }


def told(table: pd.DataFrame) -> pd.DataFrame:
    """`comparison_table` as a page shows it: the bounds as one text."""
    bounds = [
        "" if pd.isna(low) or pd.isna(high) else f"{low:+.4f} to {high:+.4f}"
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


def every_task(found: Comparison) -> pd.DataFrame:
    """One row an architecture and task, for a download: seeds and rates as text, costs as numbers."""
    rows = []
    for row in found.rows:
        for task, score in row.scores.items():
            against = score.against
            rows.append(
                {
                    "search": found.search,
                    "task": task,
                    "architecture": row.pattern,
                    "digest": row.digest,
                    "trial": row.trial,
                    "baseline": found.baseline.pattern,
                    "metric": score.metric,
                    "mean": score.mean,
                    "standard_error": score.error,
                    "difference": None if against is None else against.mean,
                    "low": None if against is None else against.low,
                    "high": None if against is None else against.high,
                    "p_corrected": score.p,
                    "verdict": verdict(score, baseline=row is found.baseline),
                    "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in score.values.items()),
                    "diverged_seeds": " ".join(map(str, score.diverged)),
                    "rate": score.rates.best,
                    "rates": " ".join(f"{rate:g}:{mean:.6g}" for rate, mean in score.rates.means.items()),
                    "fragile": score.rates.fragile,
                    **row.costs,
                }
            )
    return pd.DataFrame(rows)


def summary(found: Comparison, task: str) -> str:
    """How many differ from the baseline on a task, in a sentence."""
    held = [row.scores[task] for row in found.others if task in row.scores]
    if not held:
        return (
            f"Nothing but {found.baseline.pattern} is measured on {task} so far: there is nothing to hold against it."
        )
    words = [verdict(score, baseline=False) for score in held]
    parts = [f"{words.count(kind)} {kind}" for kind in (BETTER, WORSE, NOISE) if kind in words]
    if UNTOLD in words:
        parts.append(f"nothing tells of {words.count(UNTOLD)}")
    count = f"{len(held)} architecture{'s' if len(held) != 1 else ''}"
    return f"On {task}, {count} against {found.baseline.pattern}: {', '.join(parts)}."


def caveats(found: Comparison) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    scores = [score for row in found.rows for score in row.scores.values()]
    told = []
    if found.comparisons:
        told.append(
            "Differences are between trainings of the same seed, which saw the same batches; bars are their 95% "
            "intervals. Better and worse are those that chance alone gives in any of the "
            f"{found.comparisons} comparisons of all tasks less often than once in 20 (Holm), so that a bar may leave "
            "out zero and still be within noise. Within noise is not equal: more seeds tell."
        )
    seeds = [len(score.values) for score in scores if not score.diverged]
    if seeds and min(seeds) < 3:
        told.append(
            f"{min(seeds)} seed{'s tell' if min(seeds) != 1 else ' tells'} little: three or more show the noise."
        )
    if any(score.diverged for score in scores):
        told.append(
            "An architecture of which a seed diverged has no mean there, and may lack later runs on every task."
        )
    if any(score.rates.fragile for score in scores):
        told.append("Fragile: every other learning rate keeps less than half of what the best one gains above chance.")
    ends = sorted({score.rates.at_end for score in scores} - {""})
    if ends:
        told.append(
            f"Some are best at the {' or '.join(ends)} of the learning rates: a wider recipe.learning_rates may move "
            "them."
        )
    return told


def waiting_table(found: Comparison) -> pd.DataFrame:
    """The architectures that are not measured yet or will not be, and why."""
    return pd.DataFrame(found.waiting, columns=["architecture", "state", "reason"])


def baselines(found: Comparison) -> dict[str, str]:
    """The architectures that may be the baseline: patterns by digest, in the order in which they were drawn."""
    rows: Sequence[Compared] = sorted(found.rows, key=lambda row: row.trial)
    return {row.digest: row.pattern for row in rows}
