"""Searches in words: when they were last heard of, their budget, how far they are, and their best values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from archsearch.analysis.answer import Answer
from archsearch.storage import SearchRecord

from ..text import cell


def listed(found: Sequence[SearchRecord], *, archived: bool = False, wanted: str | None = None) -> list[SearchRecord]:
    """The searches that are listed: those that nobody has archived, the one that is ``wanted`` by name, or all."""
    return [search for search in found if archived or search.archived_at is None or search.name == wanted]


def people(search: SearchRecord, beside: Sequence[SearchRecord]) -> dict[str, str]:
    """Whose a search is, its tags and its note, as far as they tell it from those `beside` it."""
    told = {"owner": search.owner or "", "tags": ", ".join(search.tags), "note": search.note}
    shown = {
        "owner": len({other.owner for other in beside}) > 1,
        "tags": any(other.tags for other in beside),
        "note": any(other.note for other in beside),
    }
    return {name: cell(text, 200) for name, text in told.items() if shown[name]}


def age(moment: datetime, now: datetime) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, (now - moment) / timedelta(seconds=1))
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def alive(search: SearchRecord, state: str) -> str:
    """When the driver of a search was last heard of, or when the search ended, by the database's clock."""
    if state in ("running", "interrupted"):
        return f"heartbeat {age(search.heartbeat_at, search.read_at)}"
    return f"ended {age(search.finished_at or search.heartbeat_at, search.read_at)}"


def budget_of(search: SearchRecord) -> str:
    """The budget as the spec gives it."""
    given: Mapping[str, Any] = search.spec.get("budget") or {}
    return ", ".join(f"{cell(term)} ≤ {_limit(value)}" for term, value in given.items()) or "none"


def planned(search: SearchRecord) -> int | None:
    """How many candidates the spec has trained, references apart."""
    count = search.spec.get("search", {}).get("trials")
    return int(count) if count else None


def trained(answer: Answer) -> int:
    """How many candidates of the search itself ended with their training, well or not."""
    mine = answer.points[answer.points["kind"] == "search"]
    return int(mine["state"].isin(("complete", "pruned", "diverged", "failed")).sum())


def best_values(answer: Answer) -> str:
    """The best value of each objective on the front; not those of one candidate."""
    if not len(answer.front):
        return "no front yet"
    best = []
    for objective in answer.objectives:
        column = answer.front[objective.name]
        value = float(column.min() if objective.direction == "minimize" else column.max())
        best.append(f"{objective.name} {objective.show(value)}")
    return " · ".join(best)


def _limit(value: Any) -> str:
    return cell(value) if isinstance(value, str) else f"{value:g}"
