"""Scores of an architecture on a rung, by metric and seed, and the FLOPs of the training behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from archsearch.analysis.ladder import Metric
from archsearch.analysis.objectives import Objective
from archsearch.analysis.speed import SHARES

if TYPE_CHECKING:
    from archsearch.storage import MeasurementRecord, Store, TrialRecord

RECALL = "recall"
Speeds: TypeAlias = Mapping[tuple[int, str], Mapping[int, float]]
"""Metrics of how soon a model learns, which no measurement holds, by trial and name: values by seed."""


def speeds_of(store: Store, search: str, objectives: Sequence[Objective]) -> Speeds:
    """Those that are objectives of a search, on test."""
    names = [one.name for one in objectives if one.name.rpartition(".")[2] in SHARES]
    found: dict[tuple[int, str], dict[int, float]] = {}
    if names:
        values = store.values_frame(search, names, ("test",)).dropna(subset=["seed", "value"])
        for row in values.to_dict("records"):
            found.setdefault((int(row["trial"]), str(row["name"])), {})[int(row["seed"])] = float(row["value"])
    return found


def metrics_of(trial: TrialRecord, objectives: Sequence[Objective]) -> list[Metric]:
    """The measured objectives, then the primary metrics of tasks that are none of them."""
    primary = {one.task: (str(one.payload["metric"]), str(one.payload["direction"])) for one in trial.measurements}
    recall = [task for task in primary if any(one.payload.get("recall") for one in _of_task(trial, task))]
    found = []
    for objective in objectives:
        if objective.name == RECALL:
            found.append(Metric(name=RECALL, direction="maximize", task=recall[0] if len(recall) == 1 else ""))
        elif not objective.is_cost:
            task = objective.name.rpartition(".")[0]
            found.append(Metric(name=objective.name, direction=objective.direction, task=task))
    covered = {metric.name for metric in found}
    covered |= {f"{one.task}.{primary[one.task][0]}" for one in found if one.name == RECALL and one.task in primary}
    found += [
        Metric(name=f"{task}.{metric}", direction=direction, task=task)
        for task, (metric, direction) in primary.items()
        if f"{task}.{metric}" not in covered
    ]
    return found


def _of_task(trial: TrialRecord, task: str) -> list[MeasurementRecord]:
    return [one for one in trial.measurements if one.task == task]


def scores_of(trial: TrialRecord, metric: Metric, speeds: Speeds) -> dict[int, float]:
    """Values on test by seed; none at all where one lacks or is not finite."""
    if metric.name == RECALL:
        found = [
            (one.seed, one.payload["test"].get(one.payload["metric"]))
            for one in trial.measurements
            if one.payload.get("recall")
        ]
    elif (name := metric.name.rpartition(".")[2]) in SHARES:
        timed = speeds.get((trial.id, metric.name), {})
        found = [(seed, timed.get(seed)) for seed in trial.seeds]
    else:
        task = metric.name.rpartition(".")[0]
        found = [(one.seed, one.payload["test"].get(name)) for one in _of_task(trial, task)]
    values: dict[int, float] = {}
    for seed, value in found:
        if not isinstance(value, int | float) or not isfinite(value):
            return {}
        values[seed] = min(float(value), values.get(seed, inf)) if metric.name == RECALL else float(value)
    return values


def flops_of(trial: TrialRecord) -> dict[str, float]:
    """Training FLOPs of the run that is reported, of its best rate alone, by task: the mean over seeds."""
    found: dict[str, list[float]] = {}
    for one in trial.measurements:
        payload = one.payload
        flops = payload.get("costs", {}).get("train_flops")
        rows = payload.get("recipe", {}).get("batch_size")
        if isinstance(flops, int | float) and isinstance(rows, int) and payload.get("steps"):
            found.setdefault(one.task, []).append(float(flops) * rows * payload["steps"])
    return {task: fmean(values) for task, values in found.items()}
