"""Frames: searches, trials and metrics as pandas tables; pandas is imported by the first, as a driver needs none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from archsearch.storage.records import TRIAL_STATES
from archsearch.storage.rows import search_record
from archsearch.storage.tables import Metric, Search, Trial

if TYPE_CHECKING:
    from pandas import DataFrame

SEARCH_COLUMNS = (
    "id", "name", "state", "reason", "objectives", "trials", *TRIAL_STATES, "created_at", "heartbeat_at",
    "finished_at",
)  # fmt: skip
"""One row a search: `state` as of now (a stale one is interrupted), `objectives` a list of their names, `trials` how
many there are, then how many are in each state."""

TRIAL_COLUMNS = (
    "trial", "number", "kind", "state", "reason", "pattern", "digest", "seeds", "parent", "feasible", "exercised",
    "unexercised", "violations", "params", "created_at", "started_at", "finished_at",
)  # fmt: skip
"""One row a trial: `trial` is its id, `number` counts within the search, `seeds` and `unexercised` are lists,
`violations` (term to excess) and `params` dicts; `feasible` says that nothing is violated, `exercised` that every
layer's sparsity acted, and `parent` is the trial that a confirm trial confirms (NA for others)."""

METRIC_COLUMNS = ("trial", "name", "split", "task", "seed", "step", "value")
"""One row a number: `trial` is the trial's id, `split` validation, test, cost or progress; `task`, `seed` and `step`
are NA where the number belongs to none, and `value` is NaN where it was not finite."""

_MOMENT = "datetime64[us, UTC]"


def searches_frame(session: Session, now: datetime) -> DataFrame:
    """`SEARCH_COLUMNS`, the oldest search first."""
    counts: dict[int, dict[str, int]] = {}
    query = select(Trial.search_id, Trial.state, func.count()).group_by(Trial.search_id, Trial.state)
    for search_id, state, count in session.execute(query):
        counts.setdefault(search_id, {})[state] = count
    records = [search_record(row) for row in session.scalars(select(Search).order_by(Search.id))]
    rows = [
        (
            record.id, record.name, record.state_now(now), record.reason,
            [objective["name"] for objective in record.objectives], sum(counts.get(record.id, {}).values()),
            *(counts.get(record.id, {}).get(state, 0) for state in TRIAL_STATES),
            record.created_at, record.heartbeat_at, record.finished_at,
        )
        for record in records
    ]  # fmt: skip
    return _frame(rows, SEARCH_COLUMNS, dict.fromkeys(("created_at", "heartbeat_at", "finished_at"), _MOMENT))


def trials_frame(session: Session, search_id: int, where: ColumnElement[bool] | None = None) -> DataFrame:
    """`TRIAL_COLUMNS` of a search, by number; of those trials only for which `where` holds."""
    columns = {
        "trial": Trial.id, "number": Trial.number, "kind": Trial.kind, "state": Trial.state, "reason": Trial.reason,
        "pattern": Trial.pattern, "digest": Trial.digest, "seeds": Trial.seeds, "parent": Trial.parent_id,
        "unexercised": Trial.unexercised, "violations": Trial.violations, "params": Trial.params,
        "created_at": Trial.created_at, "started_at": Trial.started_at, "finished_at": Trial.finished_at,
    }  # fmt: skip
    query = select(*columns.values()).where(Trial.search_id == search_id, _or_all(where)).order_by(Trial.number)
    types = {"parent": "Int64", **dict.fromkeys(("created_at", "started_at", "finished_at"), _MOMENT)}
    frame = _frame(session.execute(query), list(columns), types)
    feasible, exercised = ~frame["violations"].astype(bool), ~frame["unexercised"].astype(bool)
    return frame.assign(feasible=feasible, exercised=exercised)[list(TRIAL_COLUMNS)]


def metrics_frame(
    session: Session, search_id: int, splits: Collection[str] | None, where: ColumnElement[bool] | None = None
) -> DataFrame:  # fmt: skip
    """`METRIC_COLUMNS` of a search, in the order in which they were stored; of all splits when `splits` is None, and
    of those trials only for which `where` holds."""
    query = (
        select(Metric.trial_id, Metric.name, Metric.split, Metric.task, Metric.seed, Metric.step, Metric.value)
        .join(Trial, Trial.id == Metric.trial_id)
        .where(Trial.search_id == search_id, _or_all(where))
        .order_by(Metric.id)
    )
    if splits is not None:
        query = query.where(Metric.split.in_(splits))
    types = {"task": "string", "seed": "Int64", "step": "Int64", "value": "float64"}
    return _frame(session.execute(query), METRIC_COLUMNS, types)


def _or_all(where: ColumnElement[bool] | None) -> ColumnElement[bool]:
    return true() if where is None else where


def _frame(rows: Iterable[Sequence[Any]], columns: Sequence[str], types: dict[str, str]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame([tuple(row) for row in rows], columns=pd.Index(columns)).astype(types)
