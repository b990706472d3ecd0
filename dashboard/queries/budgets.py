"""A choice under a budget: what can be limited, the rungs of a limit, and how sure the best within it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from archsearch.analysis.answer import Answer
from archsearch.analysis.budget import Pick
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.costs import Budget
from archsearch.errors import SpecError
from archsearch.storage import SearchRecord
from archsearch.units import format_quantity

from .searches import budget_of


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
