"""Rows to records, and plain data to what a row can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from archsearch.exercise import Unexercised
from archsearch.storage.driver import Driver
from archsearch.storage.records import MeasurementRecord, MetricValue, SearchRecord, TrialRecord
from archsearch.storage.tables import MeasurementRow, Search, Trial


def finite(value: Any) -> Any:
    """`value` with None for every number that is not finite, which JSON and SQL have no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def metric_row(trial_id: int, metric: MetricValue) -> dict[str, Any]:
    """The columns of one metric."""
    value = None if metric.value is None else finite(float(metric.value))
    return {
        "trial_id": trial_id, "name": metric.name, "split": metric.split, "task": metric.task,
        "seed": metric.seed, "step": metric.step, "value": value,
    }  # fmt: skip


def curve_metrics(curve: Iterable[Mapping[str, Any]], task: str, seed: int) -> list[MetricValue]:
    """The numbers of a learning curve, whose entries hold "step" and values by name."""
    return [
        MetricValue(name=f"{task}.{name}", split="progress", value=value, task=task, seed=seed, step=int(entry["step"]))
        for entry in curve
        for name, value in entry.items()
        if name != "step"
    ]


def search_record(row: Search) -> SearchRecord:
    """The record of one search."""
    return SearchRecord(
        id=row.id, name=row.name, state=row.state, reason=row.reason, spec=row.spec,
        objectives=tuple(row.objectives), created_at=row.created_at, heartbeat_at=row.heartbeat_at,
        finished_at=row.finished_at, beats=row.beats,
        driver=None if row.driver is None else Driver.from_json(row.driver),
    )  # fmt: skip


def trial_record(row: Trial, costs: Mapping[str, float], measurements: Iterable[MeasurementRow] = ()) -> TrialRecord:
    """The record of one trial."""
    return TrialRecord(
        id=row.id, search_id=row.search_id, number=row.number, kind=row.kind, state=row.state, reason=row.reason,
        arch=row.arch, digest=row.digest, pattern=row.pattern, params=row.params, seeds=tuple(row.seeds),
        costs=dict(costs), violations=row.violations, parent=row.parent_id,
        unexercised=tuple(map(Unexercised.from_json, row.unexercised)),
        created_at=row.created_at, started_at=row.started_at, finished_at=row.finished_at,
        measurements=tuple(_measurement_record(measurement) for measurement in measurements),
    )  # fmt: skip


def _measurement_record(row: MeasurementRow) -> MeasurementRecord:
    return MeasurementRecord(
        key=row.key, task=row.task, seed=row.seed, status=row.status, payload=row.payload,
        reused_from=row.reused_from, created_at=row.created_at,
    )  # fmt: skip
