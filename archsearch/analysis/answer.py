"""Answer: a search's front with its references, and the scale, context and tasks for which it is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from archsearch.analysis.finding import MOST, Finding, finding, front_points, noise_among
from archsearch.analysis.front import front
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.analysis.points import points
from archsearch.analysis.speed import all_full
from archsearch.analysis.validity import Validity, drawn_backbone, searched_keys

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord, Store, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a search found so far; ``points`` has one row a candidate, ``front`` those that nothing dominates, and
    ``backbones`` what was drawn of the backbone of those on the front, by their trials. ``finding`` is what the front
    says in one sentence, where it has a measured objective and a cost."""

    search: SearchRecord
    state: str
    points: pd.DataFrame
    front: pd.DataFrame
    validity: Validity
    backbones: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    finding: Finding | None = None

    @cached_property
    def objectives(self) -> list[Objective]:
        """The objectives, in the order of the spec."""
        return objectives_of(self.search)

    def _measured(self, *, reference: bool) -> pd.DataFrame:
        """Complete candidates that are not on the front."""
        mine = self.points
        off = (mine["state"] == "complete") & ~mine["digest"].isin(self.front["digest"])
        return mine.loc[off & ((mine["kind"] == "reference") == reference)]

    @cached_property
    def references(self) -> pd.DataFrame:
        """The references that are measured and not on the front."""
        return self._measured(reference=True)

    @cached_property
    def dominated(self) -> pd.DataFrame:
        """The candidates that are measured and dominated, references apart."""
        mine = self._measured(reference=False)
        return mine.loc[mine["exercised"]]

    @cached_property
    def not_exercised(self) -> pd.DataFrame:
        """The measured candidates that are kept off the front because their sparsity never acted."""
        mine = self._measured(reference=False)
        return mine.loc[~mine["exercised"]]

    def chance(self, objective: Objective) -> float | None:
        """The chance level of a measured objective, where one task settles it."""
        tasks = [task for task in self.validity.tasks if objective.name in ("recall", f"{task.name}.{task.metric}")]
        levels = {task.chance for task in tasks}
        return levels.pop() if len(levels) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Plain data: the front's ``points``, then what is measured beside it in the same form."""
        return {
            "search": self.search.name,
            "state": self.state,
            "objectives": [
                {
                    "name": objective.name,
                    "direction": objective.direction,
                    "unit": objective.unit,
                    "context": objective.context,
                    "chance": self.chance(objective),
                }
                for objective in self.objectives
            ],
            **self.validity.to_json(),
            "finding": None if self.finding is None else self.finding.to_json(),
            "points": self._rows(self.front),
            "references": self._rows(self.references),
            "dominated": self._rows(self.dominated),
            "not_exercised": self._rows(self.not_exercised),
            **({} if len(self.front) else {"why_no_front": self.why_no_front()}),
        }

    def _rows(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        return [self._row(row) for row in rows.to_dict("records")]

    def _row(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        names = [objective.name for objective in self.objectives]
        return {
            "trial": int(row["trial"]),
            "number": int(row["number"]),
            "pattern": row["pattern"],
            "digest": row["digest"],
            **({"backbone": drawn} if (drawn := self.backbones.get(int(row["trial"]))) else {}),
            "kind": row["kind"],
            "seeds": [int(seed) for seed in row["seeds"]],
            "confirmed": bool(row["confirmed"]),
            "within_budget": bool(row["feasible"]),
            "exercised": bool(row["exercised"]),
            "objectives": {name: float(row[name]) for name in names},
            "spread": {name: {part: float(row[f"{name}_{part}"]) for part in ("std", "min", "max")} for name in names},
        }

    def why_no_front(self) -> str:
        """Why there is none yet, and what to do: a clause, which never begins with a name."""
        name, states = self.search.name, self.points["state"].value_counts().to_dict()
        if not states:
            told = self.search.reason or self._go_on()
            return f"search {name} has no trials yet (it is {self.state}): {told}"
        complete = self.points[self.points["state"] == "complete"]
        if not len(complete):
            counts = ", ".join(f"{count} {state}" for state, count in states.items())
            return f"search {name} has no complete trial yet ({counts}; it is {self.state}): {self._go_on()}"
        if not complete["feasible"].any():
            return (
                f"search {name} has measured references only, and they are over budget (it is {self.state}): raise "
                f"[budget] in a new search, or {self._go_on()}"
            )
        if not (complete["feasible"] & complete["exercised"]).any():
            return f"in no complete candidate of {name} the sparsity acted: narrow [space], or take longer tasks"
        return f"no complete candidate of {name} has a value for every objective: see `archsearch trials {name}`"

    def _go_on(self) -> str:
        if self.state == "running":
            return "ask again when it has gone on"
        if self.state in ("interrupted", "cancelled", "failed"):
            return f"`archsearch resume {self.search.name}` goes on with it"
        return f"`archsearch trials {self.search.name}` says what became of them"


def marks(row: Mapping[Any, Any]) -> str:
    """What must be known of a point beside its figures."""
    found = ["confirmed" if row["confirmed"] else "unconfirmed"]
    if row["kind"] == "reference":
        found.append("reference")
    if row["kind"] == "added":
        found.append("added")
    if not row["feasible"]:
        found.append("over budget")
    if not row["exercised"]:
        found.append("sparsity not exercised")
    return ", ".join(found)


def read_answer(store: Store, name: str) -> Answer:
    """The answer of the search of that name; raises `StorageError` for an unknown one."""
    search = store.search(name)
    objectives = objectives_of(search)
    names = [objective.metric for objective in objectives]
    values = store.values_frame(name, names, ("test", "cost"))
    found = points(store.candidates_frame(name), values, objectives)
    best = front(found, objectives)
    return Answer(
        finding=_finding(store, found, best, values, objectives),
        search=search,
        state=search.state_now(),
        points=found,
        front=best,
        validity=Validity.of(search, _measured(store, found)),
        backbones=_backbones(store, search, best),
    )


def _finding(
    store: Store, found: pd.DataFrame, best: pd.DataFrame, values: pd.DataFrame, objectives: list[Objective]
) -> Finding | None:
    """Of the first measured objective and the first cost; none of a front of more points than a sentence can tell of,
    or whose architectures cannot be read."""
    gained = next((one for one in objectives if not one.is_cost), None)
    cost = next((one for one in objectives if one.is_cost), None)
    if gained is None or cost is None or len(best) > MOST:
        return None
    references = found[(found["kind"] == "reference") & found[cost.name].notna()][:MOST]
    wanted = {int(trial) for trial in (*best["trial"], *references["trial"])}
    try:
        archs = store.archs(wanted)
        layers = {trial: _mixers(arch) for trial, arch in archs.items()}
    except (KeyError, TypeError):  # a database that something else wrote into
        return None
    if layers.keys() != wanted:
        return None
    full = [row[cost.name] for row in references.to_dict("records") if all_full(archs[int(row["trial"])])]
    return finding(
        front_points(best, values, layers, gained, cost),
        noise_among(found, gained),
        gained,
        cost,
        float(full[0]) if full else None,
    )


def _mixers(arch: Mapping[str, Any]) -> list[str]:
    return [str(layer["mixer"]) for layer in arch["layers"]]


def _backbones(store: Store, search: SearchRecord, best: pd.DataFrame) -> dict[int, Mapping[str, Any]]:
    if not searched_keys(search.spec):
        return {}
    found = store.archs({int(trial) for trial in best["trial"]})
    return {trial: drawn_backbone(search.spec, arch) for trial, arch in found.items()}


def _measured(store: Store, found: pd.DataFrame) -> TrialRecord | None:
    complete = found[found["state"] == "complete"]
    return store.trial(int(complete["trial"].iloc[0])) if len(complete) else None
