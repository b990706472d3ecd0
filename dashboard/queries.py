"""Queries: what the pages Searches and Front show, as frames and small records; nothing of Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from archsearch.analysis.answer import Answer, marks
from archsearch.analysis.budget import Pick
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.costs import Budget
from archsearch.errors import SpecError
from archsearch.storage import SearchRecord
from archsearch.units import format_quantity

from .text import cell
from .unexercised import read_unexercised, unexercised_layers

SHOWN = ("dominated", "references", "infeasible", "not exercised", "failed", "superseded")
"""Groups of candidates beside the front, as the switch of the front's page names them."""
_WITH_A_FRONT = ("dominated", "references")
_FAILED = ("failed", "diverged", "preempted", "cancelled")


def age(moment: datetime, now: datetime) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, (now - moment) / timedelta(seconds=1))
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def alive(search: SearchRecord, state: str, now: datetime) -> str:
    """When the driver of a search was last heard of, or when the search ended."""
    if state in ("running", "interrupted"):
        return f"heartbeat {age(search.heartbeat_at, now)}"
    return f"ended {age(search.finished_at or search.heartbeat_at, now)}"


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
    return int(mine["state"].isin(("complete", "diverged", "failed")).sum())


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


def groups(answer: Answer) -> dict[str, pd.DataFrame]:
    """The candidates beside the front, by `SHOWN`; each is in one group.

    Who lacks a value, as one seed of it gave no finite number, has failed.
    """
    points = answer.points
    search = points[points["kind"] != "reference"]
    valued = answer.dominated[[item.name for item in answer.objectives]].notna().all(axis=1)
    return {
        "dominated": answer.dominated[valued],
        "references": answer.references,
        "infeasible": search[search["state"] == "infeasible"],
        "not exercised": answer.not_exercised,
        "failed": pd.concat([search[search["state"].isin(_FAILED)], answer.dominated[~valued]]),
        "superseded": points[points["state"] == "superseded"],
    }


def shown_first(answer: Answer) -> tuple[str, ...]:
    """The groups that are shown until a viewer chooses: where there is no front, all that there is."""
    return _WITH_A_FRONT if len(answer.front) else SHOWN


def candidates_table(rows: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Candidates as people read them: numbered, each value with its unit, its spread over seeds and its marks."""
    listed: Sequence[Mapping[Any, Any]] = rows.to_dict("records")
    table = {
        "#": range(1, len(listed) + 1),
        "trial": [int(row["trial"]) for row in listed],
        "pattern": [str(row["pattern"]) for row in listed],
        **{objective.name: [value_text(objective, row) for row in listed] for objective in objectives},
        "seeds": [len(row["seeds"]) for row in listed],
        "remark": [marks(row) for row in listed],
    }
    return pd.DataFrame(table)


def value_text(objective: Objective, row: Mapping[Any, Any]) -> str:
    """A value, and in brackets the least and the greatest over seeds where they differ."""
    value, low, high = (float(row[f"{objective.name}{part}"]) for part in ("", "_min", "_max"))
    return objective.show(value) + (f" ({objective.show(low)} to {objective.show(high)})" if low < high else "")


def trial_table(rows: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """A page of trials as people read it; values are those of the validation split, or costs."""
    table = {
        "trial": rows["trial"],
        "no.": rows["number"],
        "kind": rows["kind"],
        "state": rows["state"],
        "pattern": rows["pattern"],
        **{item.name: [item.show(float(value)) for value in rows[item.metric]] for item in objectives},
        "remark": [
            reason or "; ".join(f"not exercised: {text}" for text in unexercised_layers(read_unexercised(layers)))
            for reason, layers in zip(rows["reason"], rows["unexercised"], strict=True)
        ],
    }
    return pd.DataFrame(table)


def goals(search: SearchRecord) -> tuple[Objective | None, list[Objective]]:
    """The measured objective that a choice under a budget is for, and the objectives that can be limited."""
    objectives = objectives_of(search)
    measured = [item for item in objectives if not item.is_cost]
    wanted = next((item for item in measured if item.direction == "maximize"), measured[0] if measured else None)
    limited = [item for item in objectives if item.direction == "minimize" and item is not wanted]
    return wanted, limited


def spec_limits(search: SearchRecord) -> dict[str, float]:
    """The spec's budget by objective, for the objectives that it limits; nothing of a budget that cannot be read."""
    given, context = search.spec.get("budget"), search.spec.get("objectives", {}).get("context")
    if not given or not context:
        return {}
    try:
        budget = Budget.parse(given, context=context)
    except SpecError:
        return {}
    limits = {str(term): limit for term, limit in budget.limits}
    return {item.name: limits[item.metric] for item in objectives_of(search) if item.metric in limits}


def sureness(pick: Pick, objective: Objective) -> list[str]:
    """How sure the best of `pick` is, in sentences."""
    if pick.best is None:
        return []
    count = len(pick.best["seeds"])
    seeds = f"{count} fresh seed{'s' if count != 1 else ''}" if pick.best["confirmed"] else f"{count} seed"
    if pick.best["confirmed"]:
        said = [f"Confirmed on {seeds}, on the test split."]
    else:
        said = [f"Measured with {seeds}{'s' if count != 1 else ''} and not confirmed: the best of many is partly luck."]
    return [*said, _lead_text(pick, objective)]


def _lead_text(pick: Pick, objective: Objective) -> str:
    if pick.lead is None or pick.next is None:
        return "No other candidate is within this budget."
    sign = 1 if objective.direction == "maximize" else -1
    ahead, ends = sign * pick.lead.mean, sorted((sign * pick.lead.low, sign * pick.lead.high))
    text = f"{ahead:.3f} ahead of the next, trial {pick.next['trial']}"
    if pick.lead.noise == "unknown":
        return f"{text}; with one seed each, nothing tells how much of that is luck."
    text += f" (95%: {ends[0]:.3f} to {ends[1]:.3f})"
    return f"{text}: a clear lead." if pick.lead.clear else f"{text}: seeds alone could make that difference."


def beyond(
    search: SearchRecord, answer: Answer, wanted: Objective, limits: Mapping[str, float], best: float | None
) -> list[str]:
    """A sentence on the best reference within `limits` that only the search's own budget keeps from being chosen,
    where it is better than `best` (None: than nothing)."""
    rows = answer.references
    rows = rows[~rows["feasible"].astype(bool) & rows["exercised"].astype(bool) & rows[wanted.name].notna()]
    for name, limit in limits.items():
        rows = rows[rows[name] <= limit]
    sign = 1.0 if wanted.direction == "maximize" else -1.0
    rows = rows.assign(goodness=sign * rows[wanted.name]).sort_values("goodness", ascending=False, kind="stable")
    if not len(rows) or (best is not None and float(rows["goodness"].iloc[0]) <= sign * best):
        return []
    first = rows.iloc[0]
    return [
        f"Not counted, as it is over the search's own budget ({budget_of(search)}): the reference of trial "
        f"{int(first['trial'])}, {wanted.name} {wanted.show(float(first[wanted.name]))}."
    ]


def ladder(values: Sequence[float], unit: str) -> list[float]:
    """Round limits from the least of `values` up to the first that none of them exceeds."""
    found = sorted(value for value in values if value > 0)
    if not found:
        return []
    base, steps = (2.0, (1.0, 1.25, 1.5, 1.75)) if unit == "bytes" else (10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    rungs = (step * base**power for power in range(-3, 64) for step in steps)
    kept = [rung for rung in rungs if found[0] <= rung]
    last = next(index for index, rung in enumerate(kept) if rung >= found[-1])
    return kept[: last + 1]


def rung_text(value: float, unit: str) -> str:
    """A limit as the slider shows it."""
    return format_quantity(value, unit=unit)


def _limit(value: Any) -> str:
    return cell(value) if isinstance(value, str) else f"{value:g}"
