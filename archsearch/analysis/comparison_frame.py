"""A comparison as one frame, as it is written to CSV: by the command, and by the page's download."""

from __future__ import annotations

from typing import Any

import pandas as pd

from archsearch.analysis.compared import Compared, Comparison
from archsearch.analysis.scores import Score
from archsearch.analysis.speed import SHARES

BASELINE = "baseline"


def frame(found: Comparison) -> pd.DataFrame:
    """One row an architecture and metric, those of a task together: seeds and rates as text, costs as numbers.

    ``p_corrected`` is for all comparisons that are made. Tokens of speed are means over the seeds that arrived, of
    which ``..._seeds`` says how many of how many.
    """
    return pd.DataFrame(
        [_row(row, row.scores[name], found) for name in found.scored for row in found.rows if name in row.scores]
    )


def _row(row: Compared, score: Score, found: Comparison) -> dict[str, Any]:
    against = score.against
    return {
        "search": found.search,
        "task": score.task,
        "architecture": row.pattern,
        "asked": row.asked,
        "digest": row.digest,
        "trial": row.trial,
        "baseline": found.baseline.pattern,
        "metric": score.metric,
        "direction": score.direction,
        "mean": score.mean,
        "standard_error": score.error,
        "difference": None if against is None else against.mean,
        "low": None if against is None else against.low,
        "high": None if against is None else against.high,
        "p_corrected": score.p,
        "verdict": BASELINE if row is found.baseline else score.verdict,
        "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in score.values.items()),
        "diverged_seeds": " ".join(map(str, score.diverged)),
        "rate": score.rates.best,
        "rates": " ".join(f"{rate:g}:{mean:.6g}" for rate, mean in score.rates.means.items()),
        "fragile": score.rates.fragile,
        "best_at_end": score.rates.at_end,
        "steps": score.steps,
        "train_flops": score.train_flops,
        **_speeds(row, score),
        **row.costs,
    }


def _speeds(row: Compared, score: Score) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for metric in SHARES:
        found = row.speeds.get(score.task, {}).get(metric)
        told[metric] = None if found is None else found.tokens
        told[f"{metric}_seeds"] = "" if found is None else f"{found.arrived} of {found.seeds}"
    return told
