"""The trials that a page offers: the front first, then the references, then what else was measured, then the rest."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from archsearch.analysis.answer import Answer
from archsearch.analysis.objectives import Objective
from archsearch.errors import StorageError
from archsearch.storage import Store

from ..text import cell

OFFERED = 1000
"""Trials that a list offers, beside what the URL names; more nobody reads."""

MOST = 1_000
"""Characters of a trial in a list, before a page shortens it."""

_ROLES = ("on the front", "reference", "", "")


def choices(answer: Answer, most: int = OFFERED) -> dict[int, str]:
    """How a list shows the trials that speak for a search's candidates, by trial; at most `most`."""
    found = answer.points
    places = {int(trial): place for place, trial in enumerate(answer.front["trial"])}
    complete = found["state"] == "complete"
    ranks = (~found["trial"].isin(places)).astype(int) + (found["kind"] != "reference") + ~complete
    ranks = ranks.where(~found["trial"].isin(places), 0)
    ordered = found.assign(rank=ranks.clip(upper=3), place=found["trial"].map(places)).sort_values(
        ["rank", "place", "number"]
    )
    rows = ordered.head(most).to_dict("records")
    return {int(row["trial"]): _label(row, answer.objectives) for row in rows}


def named(store: Store, trial: int) -> str:
    """How a list shows a trial that speaks for no candidate, such as one that was confirmed by another."""
    try:
        record = store.trial(trial)
    except StorageError:
        return str(trial)
    return cell(" · ".join(part for part in (str(trial), record.kind, record.state, record.pattern) if part), MOST)


def _label(row: Mapping[Hashable, Any], objectives: Sequence[Objective]) -> str:
    role = _ROLES[int(row["rank"])] or (row["state"] if row["state"] != "complete" else "")
    values = ", ".join(f"{objective.name} {objective.show(float(row[objective.name]))}" for objective in objectives)
    return cell(" · ".join(part for part in (str(row["trial"]), role, str(row["pattern"]), values) if part), MOST)
