"""The ladder: its rungs, places, agreement, laws and crossings as frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from archsearch.analysis.ladder import Ladder, Metric, Rung, StepUp
from archsearch.analysis.ladder_text import agreement_of, move_of, size_of
from archsearch.analysis.power_law import EXTRAPOLATED, PowerLaw

CURVE_POINTS = 80
PLACES = ("key", "pattern", "rung", "place", "score", "low", "high", "move")
"""One row an architecture and rung: its place among those with a score there, 1 for the best, its mean score with the
smallest and largest of its seeds, and how it moved from the rung below ("" on the first that it is on)."""


def rungs_table(found: Ladder) -> pd.DataFrame:
    """One row a rung."""
    rows = [
        (
            rung.number,
            rung.search,
            rung.state,
            size_of(rung),
            sum(one.why != "reference" for one in rung.standings) if rung.number > 1 else None,
            len(rung.left) if rung.number < len(found.rungs) else None,
            rung.late or None,
        )
        for rung in found.rungs
    ]
    columns = ["rung", "search", "state", "size", "carried up to it", "left behind", "measured too late"]
    frame = pd.DataFrame(rows, columns=columns)
    counts = ["carried up to it", "left behind", "measured too late"]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def left_table(found: Ladder) -> pd.DataFrame:
    """Those that were not carried up though their turn had come, each with why."""
    rows = [(rung.number, pattern, reason) for rung in found.rungs for pattern, reason in rung.left.items()]
    return pd.DataFrame(rows, columns=["rung", "pattern", "why it was left behind"])


def places(found: Ladder, metric: Metric) -> pd.DataFrame:
    """`PLACES` of a metric, by rung and place."""
    moves = {
        (step.above, move.key): move_of(move) for step in found.steps if step.metric == metric for move in step.moves
    }
    rows = [row for rung in found.rungs for row in _placed(found, rung, metric, moves)]
    return pd.DataFrame(rows, columns=list(PLACES))


def _placed(
    found: Ladder, rung: Rung, metric: Metric, moves: dict[tuple[int, str], str]
) -> list[tuple[str, str, int, int, float, float, float, str]]:
    scores = {one.key: list(one.scores[metric.name].values()) for one in rung.standings if metric.name in one.scores}
    means = {key: float(np.mean(values)) for key, values in scores.items()}
    sign = 1.0 if metric.maximize else -1.0
    rows = []
    for key, mean in means.items():
        place = 1 + sum(sign * (other - mean) > 0 for other in means.values())
        ends = min(scores[key]), max(scores[key])
        rows.append((key, found.labels[key], rung.number, place, mean, *ends, moves.get((rung.number, key), "")))
    return sorted(rows, key=lambda row: (row[3], row[1]))


def agreement_table(found: Ladder) -> pd.DataFrame:
    """One row a step up and metric."""
    rows = [
        (_step(step), step.metric.name, one.count, one.tau, one.low, one.high, agreement_of(step))
        for step in found.steps
        for one in [step.agreement]
    ]
    return pd.DataFrame(rows, columns=["rungs", "metric", "architectures", "tau", "95% from", "95% to", "in words"])


def _step(step: StepUp) -> str:
    return f"{step.below} to {step.above}"


def moves_table(found: Ladder, metric: Metric) -> pd.DataFrame:
    """Who rose and who fell, step by step."""
    rows = [
        (_step(step), found.labels[move.key], move.below, move.above, move_of(move))
        for step in found.steps
        if step.metric == metric
        for move in step.moves
    ]
    return pd.DataFrame(rows, columns=["rungs", "pattern", "place below", "place above", "so"])


def laws_table(found: Ladder, metric: Metric) -> pd.DataFrame:
    """One row an architecture: its law, or why there is none."""
    rows = []
    for key, law in found.laws(metric).items():
        if isinstance(law, str):
            rows.append((found.labels[key], *[np.nan] * 4, law))
        else:
            low, high = law.exponent_band or (np.nan, np.nan)
            rows.append((found.labels[key], law.floor, law.exponent, low, high, ""))
    return pd.DataFrame(rows, columns=["pattern", "floor", "exponent", "95% from", "95% to", "why there is no law"])


def law_points(found: Ladder, metric: Metric) -> pd.DataFrame:
    """The means that laws pass through: ``pattern``, ``flops``, ``loss``, ``error`` (NaN where unknown)."""
    rows = [
        (found.labels[key], point.flops, point.loss, point.error)
        for key, law in found.laws(metric).items()
        if isinstance(law, PowerLaw)
        for point in law.points
    ]
    return pd.DataFrame(rows, columns=["pattern", "flops", "loss", "error"])


def law_curves(found: Ladder, metric: Metric) -> pd.DataFrame:
    """Fitted losses with their bands, to `EXTRAPOLATED` times the largest size: ``pattern``, ``flops``, ``loss``,
    ``low``, ``high`` (NaN without a band), ``measured`` (False beyond what was), ``checked`` (False where as few sizes
    as the law has numbers cannot speak against it)."""
    frames = []
    for key, law in found.laws(metric).items():
        if isinstance(law, str):
            continue
        most = law.points[-1].flops
        flops = np.unique(np.append(np.geomspace(law.points[0].flops, most * EXTRAPOLATED, CURVE_POINTS), most))
        low, high = law.band(flops) or (np.full(len(flops), np.nan),) * 2
        curve = pd.DataFrame({"flops": flops, "loss": law.loss(flops), "low": low, "high": high})
        frames.append(curve.assign(pattern=found.labels[key], measured=flops <= most, checked=law.checked))
    columns = ["pattern", "flops", "loss", "low", "high", "measured", "checked"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def crossings_table(found: Ladder, metric: Metric) -> pd.DataFrame:
    """Where laws are predicted to cross."""
    rows = [
        (
            one.flops,
            one.low,
            one.high,
            one.sure * 100,
            found.labels[one.better],
            found.labels[one.worse],
            "extrapolated beyond what was measured" if one.beyond else "",
        )
        for one in found.crossings(metric)
    ]
    columns = ["from training FLOPs", "95% from", "95% to", "% of resamples", "better from there on", "worse", ""]
    return pd.DataFrame(rows, columns=columns)
