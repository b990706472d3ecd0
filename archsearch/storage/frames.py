"""Frames: searches, trials and metrics as pandas tables; pandas is imported by the first, as a driver needs none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from archsearch.storage.columns import METRIC, TRIAL
from archsearch.storage.records import TRIAL_STATES
from archsearch.storage.remarks import Remarks
from archsearch.storage.rows import read_columns, search_records
from archsearch.storage.tables import Metric, Trial

if TYPE_CHECKING:
    from pandas import DataFrame

SEARCH_COLUMNS = (
    "id",
    "name",
    "state",
    "reason",
    "objectives",
    "trials",
    *TRIAL_STATES,
    "created_at",
    "heartbeat_at",
    "finished_at",
    "owner",
    "tags",
    "note",
    "archived_at",
)
"""One row a search: `state` as of now (a stale one is interrupted), `objectives` a list of their names, `trials` how
many there are, then how many are in each state; `tags` is a list, and `archived_at` NaT for one that is listed."""

TRIAL_COLUMNS = (
    "trial",
    "number",
    "kind",
    "state",
    "reason",
    "pattern",
    "digest",
    "seeds",
    "parent",
    "feasible",
    "exercised",
    "unexercised",
    "violations",
    "params",
    "created_at",
    "started_at",
    "finished_at",
)
"""One row a trial: `trial` is its id, `number` counts within the search, `seeds` and `unexercised` are lists,
`violations` (term to excess) and `params` dicts; `feasible` says that nothing is violated, `exercised` that every
layer's sparsity acted, and `parent` is the trial that a confirm trial confirms, or to whose candidate a
search trial gives a second seed (NA for others)."""

METRIC_COLUMNS = ("trial", "name", "split", "task", "seed", "step", "value")
"""One row a number: `trial` is the trial's id, `split` validation, test, cost or progress; `task`, `seed` and `step`
are NA where the number belongs to none, and `value` is NaN where it was not finite."""

_NAMES = {"id": "trial", "trial_id": "trial", "parent_id": "parent"}
_MOMENT = "datetime64[us, UTC]"


def searches_frame(session: Session, remarks: Remarks) -> DataFrame:
    """`SEARCH_COLUMNS`, the oldest search first; trials in a state that is not known are not counted."""
    counts: dict[int, dict[str, int]] = {}
    query = select(Trial.search_id, Trial.state, func.count()).where(Trial.state.in_(TRIAL_STATES))
    for search_id, state, count in session.execute(query.group_by(Trial.search_id, Trial.state)):
        counts.setdefault(search_id, {})[state] = count
    records = search_records(session, true(), remarks)
    rows = [
        (
            record.id,
            record.name,
            record.state_now(),
            record.reason,
            [objective["name"] for objective in record.objectives],
            sum(counts.get(record.id, {}).values()),
            *(counts.get(record.id, {}).get(state, 0) for state in TRIAL_STATES),
            record.created_at,
            record.heartbeat_at,
            record.finished_at,
            record.owner,
            list(record.tags),
            record.note,
            record.archived_at,
        )
        for record in records
    ]
    moments = ("created_at", "heartbeat_at", "finished_at", "archived_at")
    return _frame(rows, SEARCH_COLUMNS, dict.fromkeys(moments, _MOMENT))


def trials_frame(
    session: Session, search_id: int, remarks: Remarks, where: ColumnElement[bool] | None = None
) -> DataFrame:
    """`TRIAL_COLUMNS` of a search, by number; of those trials only for which `where` holds."""
    columns = {name: column for name, column in TRIAL.items() if name not in ("search_id", "arch")}
    query = select(*(getattr(Trial, name) for name in columns)).where(Trial.search_id == search_id, _or_all(where))
    found = read_columns(session, query.order_by(Trial.number), "trial", columns, remarks)
    types = {"parent": "Int64", **dict.fromkeys(("created_at", "started_at", "finished_at"), _MOMENT)}
    frame = _typed({_NAMES.get(name, name): values for name, values in found.items()}, types)
    feasible, exercised = ~frame["violations"].astype(bool), ~frame["unexercised"].astype(bool)
    return frame.assign(feasible=feasible, exercised=exercised)[list(TRIAL_COLUMNS)]


def metrics_frame(
    session: Session,
    search_id: int,
    splits: Collection[str] | None,
    remarks: Remarks,
    where: ColumnElement[bool] | None = None,
) -> DataFrame:
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
    found = read_columns(session, query, "metric of trial", METRIC, remarks)
    return _typed({_NAMES.get(name, name): values for name, values in found.items()}, types)


def _or_all(where: ColumnElement[bool] | None) -> ColumnElement[bool]:
    return true() if where is None else where


def _typed(columns: dict[str, list[Any]], types: dict[str, str]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(values, dtype=types.get(name)) for name, values in columns.items()})


def _frame(rows: Iterable[Sequence[Any]], columns: Sequence[str], types: dict[str, str]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame([tuple(row) for row in rows], columns=pd.Index(columns)).astype(types)
