"""The ladder as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from archsearch.analysis.ladder import Ladder, Metric, Rung, StepUp
from archsearch.analysis.power_law import EXTRAPOLATED, PowerLaw


def ladder_json(found: Ladder) -> dict[str, Any]:
    """Rungs, steps up, laws and crossings; ``key`` is an architecture's digest on the first rung."""
    return {
        "ladder": found.name,
        "planned": found.planned,
        "architectures": found.labels,
        "rungs": [_rung(rung) for rung in found.rungs],
        "steps": [_step(step) for step in found.steps],
        "laws": [_laws(found, metric) for metric in found.metrics] if len(found.rungs) > 2 else [],
    }


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "rung": rung.number,
        "search": rung.search,
        "state": rung.state,
        "sizes": dict(rung.sizes),
        "architectures": [asdict(one) for one in rung.standings],
        "left": dict(rung.left),
        "without_noise": list(rung.without_noise),
        "late": rung.late,
    }


def _step(step: StepUp) -> dict[str, Any]:
    return {
        "below": step.below,
        "above": step.above,
        "metric": step.metric.name,
        "direction": step.metric.direction,
        "tau": {**asdict(step.agreement), "clear": step.agreement.clear},
        "again": step.again,
        "moves": [asdict(move) for move in step.moves],
    }


def _laws(found: Ladder, metric: Metric) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "loss": f"1 - {metric.name}" if metric.maximize else metric.name,
        "extrapolated": EXTRAPOLATED,
        "laws": {key: _law(law) for key, law in found.laws(metric).items()},
        "crossings": [asdict(crossing) for crossing in found.crossings(metric)],
    }


def _law(law: PowerLaw | str) -> dict[str, Any]:
    if isinstance(law, str):
        return {"why": law}
    most = law.points[-1].flops
    at = np.array([most, EXTRAPOLATED * most])
    band = law.band(at)
    return {
        "points": [asdict(point) for point in law.points],
        "floor": law.floor,
        "scale": law.scale,
        "exponent": law.exponent,
        "exponent_band": law.exponent_band,
        "reference_flops": law.reference,
        "checked": law.checked,
        "predicted": [
            {
                "flops": float(at[index]),
                "loss": float(law.loss(at)[index]),
                "low": None if band is None else float(band[0][index]),
                "high": None if band is None else float(band[1][index]),
            }
            for index in range(len(at))
        ],
    }
