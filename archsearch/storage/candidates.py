"""Candidates: of every trial of a search what a front needs, and nothing that takes long to read."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from archsearch.storage.tables import MeasurementRow, Metric, Search, Trial

if TYPE_CHECKING:
    from pandas import DataFrame

CANDIDATE_COLUMNS = (
    "trial", "number", "kind", "state", "pattern", "digest", "seeds", "feasible", "exercised",
)  # fmt: skip
"""One row a trial, as in `frames.TRIAL_COLUMNS`."""

VALUE_COLUMNS = ("trial", "name", "split", "seed", "step", "value")
"""One row a number, as in `frames.METRIC_COLUMNS`; only numbers that are no part of a curve."""


def candidates_frame(session: Session, search_id: int) -> DataFrame:
    """`CANDIDATE_COLUMNS` of a search, by number."""
    import pandas as pd

    query = (
        select(
            Trial.id, Trial.number, Trial.kind, Trial.state, Trial.pattern, Trial.digest, cast(Trial.seeds, String),
            cast(Trial.violations, String) == "{}", cast(Trial.unexercised, String) == "[]",
        )
        .where(Trial.search_id == search_id)
        .order_by(Trial.number)
    )  # fmt: skip
    frame = pd.DataFrame(session.execute(query).all(), columns=pd.Index(CANDIDATE_COLUMNS))
    frame["seeds"] = [list(_numbers(text)) for text in frame["seeds"]]
    return frame.astype({"feasible": bool, "exercised": bool})


def values_frame(session: Session, search_id: int, names: Collection[str], splits: Collection[str]) -> DataFrame:
    """`VALUE_COLUMNS` of the metrics `names` of a search, of some splits, by trial."""
    import pandas as pd

    query = (
        select(Metric.trial_id, Metric.name, Metric.split, Metric.seed, Metric.step, Metric.value)
        .join(Trial, Trial.id == Metric.trial_id)
        .where(Trial.search_id == search_id, Metric.split.in_(splits), Metric.name.in_(names), Metric.step.is_(None))
        .order_by(Metric.trial_id)
    )
    types = {"seed": "Int64", "step": "Int64", "value": "float64"}
    return pd.DataFrame(session.execute(query).all(), columns=pd.Index(VALUE_COLUMNS)).astype(types)


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
        marks += sorted(tuple(row) for row in session.execute(states))
    return "/".join(map(str, marks))


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text))
