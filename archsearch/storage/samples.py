"""Samples: some candidates of a large search with all that is known of them, equal for equal searches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from archsearch.storage import frames, kinds
from archsearch.storage.columns import TRIAL, Column
from archsearch.storage.remarks import Remarks
from archsearch.storage.rows import read_columns
from archsearch.storage.tables import MOST_ROWS, Trial

if TYPE_CHECKING:
    from pandas import DataFrame


_COLUMNS = {
    **{name: TRIAL[name] for name in ("id", "digest", "params")},
    "arch": Column(kind=kinds.MAPPING),
}


_ARCHS = {"id": TRIAL["id"], "arch": _COLUMNS["arch"]}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """``trials`` and ``metrics`` (test and cost) are the store's frames of the candidates that were drawn, ``archs``
    their architectures and ``params`` their choices by digest, ``complete`` the number of complete candidates drawn
    from. Choices are those of the first trial that a sampler made; a reference has none."""

    trials: DataFrame
    metrics: DataFrame
    archs: Mapping[str, Mapping[str, Any]]
    params: Mapping[str, Mapping[str, Any]]
    complete: int

    @property
    def whole(self) -> bool:
        """Whether every complete candidate was drawn."""
        return len(self.archs) == self.complete


def sample(session: Session, search_id: int, candidates: int, remarks: Remarks) -> Sample:
    """The candidates of the lowest digests, which are as random as a hash is; those that a complete trial has."""
    measured = (Trial.search_id == search_id, Trial.state == "complete", Trial.kind != "confirm")
    drawn = (
        select(Trial.digest)
        .where(*measured)
        .distinct()
        .order_by(Trial.digest)
        .limit(min(max(candidates, 0), MOST_ROWS))
    )
    texts = [digest for digest in session.scalars(drawn) if isinstance(digest, str)]
    last = texts[-1] if texts else ""  # the database's last: what follows what is its own affair
    # every complete candidate up to the last digest was drawn, so that one comparison stands for the list
    within = Trial.digest.in_(select(Trial.digest).where(*measured, Trial.digest <= last))
    trials = frames.trials_frame(session, search_id, remarks, within)
    archs: dict[str, Mapping[str, Any]] = {}
    params: dict[str, Mapping[str, Any]] = {}
    rows = select(*(getattr(Trial, name) for name in _COLUMNS)).where(*measured, Trial.digest <= last)
    found = read_columns(session, rows.order_by(Trial.number), "trial", _COLUMNS, remarks)
    for digest, arch, chosen in zip(found["digest"], found["arch"], found["params"], strict=True):
        archs.setdefault(digest, arch)
        params[digest] = params.get(digest) or chosen
    return Sample(
        trials=trials,
        metrics=frames.metrics_frame(session, search_id, ("test", "cost"), remarks, within),
        archs=archs,
        params=params,
        complete=session.scalar(select(func.count(Trial.digest.distinct())).where(*measured)) or 0,
    )


def archs(session: Session, trials: Collection[int], remarks: Remarks) -> dict[int, Mapping[str, Any]]:
    """The architectures of some trials, by the trials' ids; one that cannot be read is left out."""
    rows = select(*(getattr(Trial, name) for name in _ARCHS)).where(Trial.id.in_(trials))
    found = read_columns(session, rows, "trial", _ARCHS, remarks)
    return dict(zip(found["id"], found["arch"], strict=True))
