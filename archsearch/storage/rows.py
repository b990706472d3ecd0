"""Rows to records, and plain data to what a row can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from archsearch.exercise import Unexercised
from archsearch.storage.clock import database_now
from archsearch.storage.columns import MEASUREMENT, METRIC, SEARCH, TRIAL, Column, sound
from archsearch.storage.driver import Driver
from archsearch.storage.failures import plain_data
from archsearch.storage.records import (
    OPEN_STATES,
    MeasurementRecord,
    MetricValue,
    NewTrial,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.remarks import Remarks
from archsearch.storage.tables import Base, MeasurementRow, Metric, Search, Trial


def finite(value: Any) -> Any:
    """`value` with None for every number that is not finite, which JSON and SQL have no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def trial_values(trial: NewTrial) -> dict[str, Any]:
    """The columns of a new trial, but for its search, its number and the moments."""
    return {
        "kind": trial.kind,
        "state": trial.state,
        "reason": trial.reason,
        "arch": finite(trial.arch),
        "digest": trial.digest,
        "pattern": trial.pattern,
        "params": finite(trial.params),
        "seeds": list(trial.seeds),
        "violations": finite(trial.violations),
        "unexercised": list(trial.unexercised),
        "parent_id": trial.parent,
    }


def new_trial_row(search_id: int, trial: NewTrial, now: datetime) -> Trial:
    """The row of a trial that is stored at `now`, without its number."""
    return Trial(
        **trial_values(trial),
        search_id=search_id,
        created_at=now,
        started_at=now if trial.state == "running" else None,
        finished_at=None if trial.state in OPEN_STATES else now,
    )


def cost_metrics(trial: NewTrial) -> list[MetricValue]:
    """The costs of a trial as numbers of it."""
    return [MetricValue(name=name, split="cost", value=value) for name, value in trial.costs.items()]


def measurement_values(
    measurement: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float | None]],
    task: str | None,
) -> tuple[dict[str, Any], list[MetricValue]]:
    """The columns of a measurement, but for its trial, its origin and the moment, and the numbers that belong to it."""
    label, seed = task or str(measurement["task"]), int(measurement["seed"])
    values = {
        "key": measurement["key"],
        "task": label,
        "seed": seed,
        "status": measurement["status"],
        "payload": finite(measurement),
    }
    return values, split_metrics(metrics, label, seed) + curve_metrics(measurement.get("curve", ()), label, seed)


def metric_row(trial_id: int, metric: MetricValue) -> dict[str, Any]:
    """The columns of one metric."""
    with plain_data():
        value = None if metric.value is None else finite(float(metric.value))
    return {
        "trial_id": trial_id,
        "name": metric.name,
        "split": metric.split,
        "task": metric.task,
        "seed": metric.seed,
        "step": metric.step,
        "value": value,
    }


def split_metrics(metrics: Mapping[str, Mapping[str, float | None]], task: str, seed: int) -> list[MetricValue]:
    """The numbers of a measurement, by split and name."""
    return [
        MetricValue(name=name, split=split, value=value, task=task, seed=seed)
        for split, named in metrics.items()
        for name, value in named.items()
    ]


def curve_metrics(curve: Iterable[Mapping[str, Any]], task: str, seed: int) -> list[MetricValue]:
    """The numbers of a learning curve, whose entries hold "step" and values by name."""
    return [
        MetricValue(name=f"{task}.{name}", split="progress", value=value, task=task, seed=seed, step=int(entry["step"]))
        for entry in curve
        for name, value in entry.items()
        if name != "step"
    ]


def search_records(session: Session, where: ColumnElement[bool], remarks: Remarks) -> list[SearchRecord]:
    """The searches that `where` chooses, the oldest first."""
    found = _read(
        session, select(*_columns(Search, SEARCH)).where(where).order_by(Search.id), "search", SEARCH, remarks
    )
    now = database_now(session)
    return [_search_record(values, now) for values in found]


def _search_record(values: dict[str, Any], now: datetime) -> SearchRecord:
    driver, objectives, tags = values.pop("driver"), tuple(values.pop("objectives")), tuple(values.pop("tags"))
    told = None if driver is None else Driver.from_json(driver)
    return SearchRecord(**values, objectives=objectives, tags=tags, driver=told, read_at=now)


def trial_records(session: Session, where: ColumnElement[bool], remarks: Remarks) -> list[TrialRecord]:
    """The trials that `where` chooses by number, with their costs and without their measurements."""
    costs = _costs(session, where, remarks)
    query = select(*_columns(Trial, TRIAL)).where(where).order_by(Trial.number)
    found = _read(session, query, "trial", TRIAL, remarks)
    return [_trial_record(values, costs.get(values["id"], {})) for values in found]


def _trial_record(values: dict[str, Any], costs: Mapping[str, float]) -> TrialRecord:
    seeds, layers, parent = tuple(values.pop("seeds")), values.pop("unexercised"), values.pop("parent_id")
    return TrialRecord(
        **values, seeds=seeds, unexercised=tuple(map(Unexercised.from_json, layers)), parent=parent, costs=dict(costs)
    )


def measurement_records(session: Session, trial_id: int, remarks: Remarks) -> tuple[MeasurementRecord, ...]:
    """The measurements of a trial by task and seed."""
    query = select(*_columns(MeasurementRow, MEASUREMENT)).where(MeasurementRow.trial_id == trial_id)
    found = _read(
        session, query.order_by(MeasurementRow.task, MeasurementRow.seed), "measurement", MEASUREMENT, remarks
    )
    return tuple(
        MeasurementRecord(**{name: value for name, value in values.items() if name not in ("id", "trial_id")})
        for values in found
    )


def unfinished(
    session: Session, trial_id: int, measured: Iterable[MeasurementRecord], remarks: Remarks
) -> tuple[MetricValue, ...]:
    """The numbers of a trial's curves that belong to none of its measurements, by step."""
    columns = {name: METRIC[name] for name in ("trial_id", "name", "split", "task", "seed", "step", "value")}
    query = select(*_columns(Metric, columns)).where(Metric.trial_id == trial_id, Metric.split == "progress")
    done = {(one.task, one.seed) for one in measured}
    found = _read(session, query.order_by(Metric.step, Metric.id), "metric of trial", columns, remarks)
    values = (MetricValue(**{name: value for name, value in row.items() if name != "trial_id"}) for row in found)
    return tuple(value for value in values if (value.task, value.seed) not in done)


def _costs(session: Session, where: ColumnElement[bool], remarks: Remarks) -> dict[int, dict[str, float]]:
    """The costs of the trials that `where` chooses, by trial and term."""
    columns = {name: METRIC[name] for name in ("trial_id", "name", "value")}
    query = select(*_columns(Metric, columns)).join(Trial, Trial.id == Metric.trial_id)
    costs: dict[int, dict[str, float]] = {}
    for values in _read(session, query.where(where, Metric.split == "cost"), "metric of trial", columns, remarks):
        value = values["value"]
        costs.setdefault(values["trial_id"], {})[values["name"]] = math.nan if value is None else value
    return costs


def read_columns(
    session: Session, query: Select[*tuple[Any, ...]], table: str, columns: Mapping[str, Column], remarks: Remarks
) -> dict[str, list[Any]]:
    """What a query of just these columns gives, column by column and checked.

    From the bare connection: of 60,000 rows, rows as objects take most of the time.
    """
    return sound(table, session.connection().execute(query).all(), columns, remarks)


def _read(
    session: Session, query: Select[*tuple[Any, ...]], table: str, columns: Mapping[str, Column], remarks: Remarks
) -> Iterator[dict[str, Any]]:
    found = read_columns(session, query, table, columns, remarks)
    for values in zip(*found.values(), strict=True):
        yield dict(zip(found, values, strict=True))


def _columns(table: type[Base], columns: Iterable[str]) -> list[Any]:
    return [getattr(table, name) for name in columns]
