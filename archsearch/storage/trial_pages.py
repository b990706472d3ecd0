"""Pages of trials: some trials of a search, chosen, ordered and cut by the database."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Subquery, and_, case, collate, func, or_, select
from sqlalchemy.orm import Session

from archsearch.errors import StorageError, listing, nearest
from archsearch.storage.columns import TRIAL
from archsearch.storage.remarks import Remarks
from archsearch.storage.rows import read_columns
from archsearch.storage.tables import MOST_ROWS, Metric, Trial

if TYPE_CHECKING:
    from pandas import DataFrame

PAGE_COLUMNS = (
    "trial",
    "number",
    "kind",
    "state",
    "pattern",
    "reason",
    "violations",
    "unexercised",
    "seeds",
    "created_at",
    "finished_at",
)
"""One row a trial, as in `frames.TRIAL_COLUMNS`; after them one column a metric that was asked for."""

_COLUMNS = {name: TRIAL[name] for name in ("id", *PAGE_COLUMNS[1:])}
_MOST = sys.float_info.max
_FINITE = case((Metric.value.between(-_MOST, _MOST), Metric.value))
"""A value that is a number; text in its place would count as 0 in a mean, and infinity as a figure."""

ORDERS = ("number", "state", "kind", "pattern")


@dataclass(frozen=True, kw_only=True)
class TrialQuery:
    """Which trials: of some states and kinds (none: all), with a text in the pattern or the reason.

    ``order`` is one of `ORDERS` or a metric that is asked for; trials without a value come last.
    """

    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    text: str = ""
    order: str = "number"
    descending: bool = True
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class TrialPage:
    """``rows`` of `PAGE_COLUMNS` and the metrics, of ``total`` trials that were chosen."""

    total: int
    rows: DataFrame


def trial_page(
    session: Session, search_id: int, query: TrialQuery, metrics: Sequence[str], split: str, remarks: Remarks
) -> TrialPage:
    """The trials that `query` chooses, with the mean over seeds of `metrics` on `split` (a cost is what it is)."""
    import pandas as pd

    total, ids = _counted(session, _chosen(session, search_id, query), query, metrics, split)
    rows = select(*(getattr(Trial, name) for name in _COLUMNS)).where(Trial.id.in_(ids))
    found = read_columns(session, rows, "trial", _COLUMNS, remarks)
    frame = pd.DataFrame(dict(zip(PAGE_COLUMNS, found.values(), strict=True)))
    frame = frame.set_index("trial", drop=False).reindex([trial for trial in ids if trial in set(found["id"])])
    frame = frame.reset_index(drop=True)
    seeds = dict(zip(found["id"], map(len, found["seeds"]), strict=True))
    values = _values(session, seeds, metrics, split)
    for name in metrics:
        frame[name] = pd.Series([values.get((trial, name)) for trial in frame["trial"]], dtype="float64")
    return TrialPage(total=total, rows=frame)


def _chosen(session: Session, search_id: int, query: TrialQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [Trial.search_id == search_id]
    if query.states:
        found.append(Trial.state.in_(query.states))
    if query.kinds:
        found.append(Trial.kind.in_(query.kinds))
    if query.text:
        columns: tuple[ColumnElement[str], ...] = (Trial.pattern.expression, Trial.reason.expression)
        if session.get_bind().dialect.name == "postgresql":
            columns = tuple(collate(column, "C") for column in columns)  # ASCII's cases, as in a file; half the time
        found.append(or_(*(column.icontains(query.text, autoescape=True) for column in columns)))
    return found


def _counted(
    session: Session, chosen: Sequence[ColumnElement[bool]], query: TrialQuery, metrics: Sequence[str], split: str
) -> tuple[int, list[int]]:
    """How many there are, and the ids of one page in the order that is asked for, the number settling what is equal;
    by one statement, since a text is looked for in every trial."""
    wanted = select(func.count().over(), Trial.id).where(*chosen)
    key: Any
    if query.order in metrics:
        means = _means(chosen, query.order, split)
        key, wanted = means.c.value, wanted.outerjoin(means, means.c.trial_id == Trial.id)
    elif query.order in ORDERS:
        key = getattr(Trial, query.order)
    else:
        known = (*ORDERS, *metrics)
        raise StorageError(f'trials have no order "{query.order}"{nearest(query.order, known)}: {listing(known)}')
    key = key.desc() if query.descending else key.asc()
    ordered = wanted.order_by(key.nulls_last(), Trial.number.desc())
    page = session.execute(ordered.limit(_bounded(query.limit)).offset(_bounded(query.offset))).all()
    if page:
        return page[0][0], [trial for _, trial in page]
    if query.offset <= 0 < query.limit:
        return 0, []
    return session.scalar(
        select(func.count()).select_from(Trial).where(*chosen)
    ) or 0, []  # no page, or beyond the last


def _bounded(rows: int) -> int:
    """A number of rows that every database takes."""
    return min(max(rows, 0), MOST_ROWS)


def _means(chosen: Sequence[ColumnElement[bool]], name: str, split: str) -> Subquery:
    """The values to order by: of complete trials whose seeds all gave one, and costs of any trial."""
    return (
        select(Metric.trial_id, func.avg(_FINITE).label("value"))
        .join(Trial, Trial.id == Metric.trial_id)
        .where(*chosen, Metric.name == name, Metric.step.is_(None))
        .where(or_(Metric.split == "cost", and_(Metric.split == split, Trial.state == "complete")))
        .group_by(Metric.trial_id)
        .having(func.count(_FINITE) == func.count())
        .subquery()
    )


def _values(
    session: Session, seeds: Mapping[int, int], metrics: Sequence[str], split: str
) -> dict[tuple[int, str], float]:
    """By trial and metric; there is none where one of so many `seeds` of a trial gave no value, as on a front."""
    query = (
        select(Metric.trial_id, Metric.name, Metric.split, func.avg(_FINITE), func.count(_FINITE), func.count())
        .where(Metric.trial_id.in_(seeds), Metric.name.in_(metrics), Metric.step.is_(None))
        .where(Metric.split.in_((split, "cost")))
        .group_by(Metric.trial_id, Metric.name, Metric.split)
    )
    return {
        (trial, name): mean
        for trial, name, found, mean, known, count in session.execute(query)
        if known == (count if found == "cost" else seeds[trial])
    }
