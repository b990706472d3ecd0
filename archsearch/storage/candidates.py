"""Candidates: of every trial of a search what a front needs, and nothing that takes long to read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from archsearch.storage import kinds
from archsearch.storage.columns import METRIC, TRIAL, Column
from archsearch.storage.kinds import numbers_of
from archsearch.storage.remarks import Remarks
from archsearch.storage.rows import read_columns
from archsearch.storage.tables import MeasurementRow, Metric, Search, Trial

if TYPE_CHECKING:
    from pandas import DataFrame

_CANDIDATE_TYPES = {
    "trial": "int64",
    "number": "int64",
    "kind": "object",
    "state": "object",
    "pattern": "object",
    "digest": "object",
    "seeds": "object",
    "feasible": "bool",
    "exercised": "bool",
}
_CANDIDATES = {
    **{name: TRIAL[name] for name in ("id", "number", "kind", "state", "pattern", "digest")},
    "seeds": Column(kind=kinds.SEED_TEXT),
    "violations": Column(kind=kinds.FLAG, mend=lambda _: False, told="the trial counts as over budget"),
    "unexercised": Column(kind=kinds.FLAG, mend=lambda _: False, told="the trial counts as not exercised"),
}
CANDIDATE_COLUMNS = tuple(_CANDIDATE_TYPES)
"""One row a trial, as in `frames.TRIAL_COLUMNS`."""

_VALUE_TYPES = {
    "trial": "int64",
    "name": "object",
    "split": "object",
    "seed": "Int64",
    "step": "Int64",
    "value": "float64",
}
_VALUES = {name: METRIC[name] for name in ("trial_id", "name", "split", "seed", "step", "value")}
VALUE_COLUMNS = tuple(_VALUE_TYPES)
"""One row a number, as in `frames.METRIC_COLUMNS`; only numbers that are no part of a curve."""


def candidates_frame(session: Session, search_id: int, remarks: Remarks) -> DataFrame:
    """`CANDIDATE_COLUMNS` of a search, by number."""
    query = (
        select(
            Trial.id,
            Trial.number,
            Trial.kind,
            Trial.state,
            Trial.pattern,
            Trial.digest,
            cast(Trial.seeds, String),
            cast(Trial.violations, String) == "{}",
            cast(Trial.unexercised, String) == "[]",
        )
        .where(Trial.search_id == search_id)
        .order_by(Trial.number)
    )
    found = read_columns(session, query, "trial", _CANDIDATES, remarks)
    frame = _frame(found, _CANDIDATE_TYPES)
    frame["seeds"] = [list(numbers_of(text) or ()) for text in found["seeds"]]
    return frame


def values_frame(
    session: Session, search_id: int, names: Collection[str], splits: Collection[str], remarks: Remarks
) -> DataFrame:
    """`VALUE_COLUMNS` of the metrics `names` of a search, of some splits, in no order."""
    query = (
        select(Metric.trial_id, Metric.name, Metric.split, Metric.seed, Metric.step, Metric.value)
        .join(Trial, Trial.id == Metric.trial_id)
        .where(Trial.search_id == search_id, Metric.split.in_(splits), Metric.name.in_(names), Metric.step.is_(None))
    )
    return _frame(read_columns(session, query, "metric of trial", _VALUES, remarks), _VALUE_TYPES)


def _frame(found: Mapping[str, list[Any]], types: Mapping[str, str]) -> DataFrame:
    import pandas as pd

    columns = zip(types, found.values(), strict=True)
    return pd.DataFrame({name: _column(values, types[name]) for name, values in columns})


def _column(values: list[Any], kind: str) -> Any:
    """Numbers by way of floats, in which None is NaN: seeds lie far below 2**53."""
    import numpy as np
    import pandas as pd

    if kind == "Int64":
        numbers = np.array(values, dtype=np.float64)
        missing = np.isnan(numbers)
        return pd.arrays.IntegerArray(np.where(missing, 0, numbers).astype(np.int64), missing)
    return np.array(values, dtype=kind)


def revision(session: Session, search_id: int) -> str:
    """A text that changes when the search has changed; of one that has ended, only a resumption changes it."""
    found = session.execute(
        select(Search.state, Search.heartbeat_at, Search.finished_at).where(Search.id == search_id)
    ).one_or_none()
    if found is None:
        return ""
    marks: list[Any] = [*found, session.scalar(select(func.max(Trial.number)).where(Trial.search_id == search_id))]
    if found.state == "running":
        marks += [session.scalar(select(func.max(table.id))) for table in (MeasurementRow, Metric)]
        states = select(Trial.state, func.count()).where(Trial.search_id == search_id).group_by(Trial.state)
        marks += sorted(str(tuple(row)) for row in session.execute(states))
    return "/".join(map(str, marks))
