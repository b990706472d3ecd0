"""Answer: a search's front with its references, and the scale, context and tasks for which it is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from archsearch.analysis import front, points
from archsearch.cli.output import table
from archsearch.cli.validity import Validity
from archsearch.costs import MEASURES
from archsearch.units import format_quantity

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

    from archsearch.storage import SearchRecord, Store, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective; ``metric`` is the name under which its values are stored, a cost's with its context."""

    name: str
    direction: str
    unit: str
    metric: str

    @property
    def is_cost(self) -> bool:
        """Whether it follows from the architecture alone."""
        return self.metric.partition("@")[0] in MEASURES

    @property
    def context(self) -> int | None:
        """The context in tokens that a cost is taken at."""
        return int(self.metric.rpartition("@")[2]) if self.is_cost else None

    def show(self, value: float) -> str:
        """A value as people read it."""
        if value != value:
            return "-"
        return format_quantity(value, unit=self.unit) if self.is_cost else f"{value:.3f}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a search found so far; ``points`` has one row a candidate, ``front`` those that nothing dominates."""

    search: SearchRecord
    state: str
    points: DataFrame
    front: DataFrame
    validity: Validity

    @property
    def objectives(self) -> list[Objective]:
        """The objectives, in the order of the spec."""
        return objectives_of(self.search)

    def _measured(self, *, reference: bool) -> DataFrame:
        """Complete candidates that are not on the front."""
        mine = self.points
        off = (mine["state"] == "complete") & ~mine["digest"].isin(self.front["digest"])
        return mine.loc[off & ((mine["kind"] == "reference") == reference)]

    @property
    def references(self) -> DataFrame:
        """The references that are measured and not on the front."""
        return self._measured(reference=True)

    @property
    def dominated(self) -> DataFrame:
        """The candidates that are measured and dominated, references apart."""
        mine = self._measured(reference=False)
        return mine.loc[mine["exercised"]]

    @property
    def not_exercised(self) -> DataFrame:
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
                    "name": objective.name, "direction": objective.direction, "unit": objective.unit,
                    "context": objective.context, "chance": self.chance(objective),
                }
                for objective in self.objectives
            ],
            **self.validity.to_json(),
            "points": self._rows(self.front),
            "references": self._rows(self.references),
            "dominated": self._rows(self.dominated),
            "not_exercised": self._rows(self.not_exercised),
            **({} if len(self.front) else {"why_no_front": self.why_no_front()}),
        }  # fmt: skip

    def _rows(self, rows: DataFrame) -> list[dict[str, Any]]:
        return [self._row(row) for row in rows.to_dict("records")]

    def _row(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        names = [objective.name for objective in self.objectives]
        return {
            "trial": int(row["trial"]),
            "number": int(row["number"]),
            "pattern": row["pattern"],
            "digest": row["digest"],
            "kind": row["kind"],
            "seeds": [int(seed) for seed in row["seeds"]],
            "confirmed": bool(row["confirmed"]),
            "within_budget": bool(row["feasible"]),
            "exercised": bool(row["exercised"]),
            "objectives": {name: float(row[name]) for name in names},
            "spread": {name: {part: float(row[f"{name}_{part}"]) for part in ("std", "min", "max")} for name in names},
        }

    def table(self) -> Table:
        """The front by number, then the references that are not on it."""
        rows = [[str(index), *self._cells(row)] for index, row in enumerate(self.front.to_dict("records"), start=1)]
        rows += [["", *self._cells(row)] for row in self.references.to_dict("records")]
        objectives = [f">{objective.name}" for objective in self.objectives]
        return table([">#", ">trial", "pattern", *objectives, ">seeds", ""], rows)

    def _cells(self, row: Mapping[Any, Any]) -> list[str]:
        values = [self._value(objective, row) for objective in self.objectives]
        return [str(row["trial"]), str(row["pattern"]), *values, str(len(row["seeds"])), marks(row)]

    @staticmethod
    def _value(objective: Objective, row: Mapping[Any, Any]) -> str:
        low, high = row[f"{objective.name}_min"], row[f"{objective.name}_max"]
        spread = f" ({objective.show(low)}..{objective.show(high)})" if low < high else ""
        return objective.show(row[objective.name]) + spread

    def why_no_front(self) -> str:
        """Why there is none yet, and what to do."""
        name, states = self.search.name, self.points["state"].value_counts().to_dict()
        if not states:
            told = self.search.reason or self._go_on()
            return f"{name} has no trials yet (it is {self.state}): {told}"
        complete = self.points[self.points["state"] == "complete"]
        if not len(complete):
            counts = ", ".join(f"{count} {state}" for state, count in states.items())
            return f"{name} has no complete trial yet ({counts}; it is {self.state}): {self._go_on()}"
        if not complete["feasible"].any():
            return (
                f"{name} has measured references only, and they are over budget (it is {self.state}): raise [budget] "
                f"in a new search, or {self._go_on()}"
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
    if not row["feasible"]:
        found.append("over budget")
    if not row["exercised"]:
        found.append("sparsity not exercised")
    return ", ".join(found)


def objectives_of(search: SearchRecord) -> list[Objective]:
    """The objectives that a search was stored with, in the order of its spec."""
    return [
        Objective(
            name=str(given["name"]), direction=str(given["direction"]), unit=str(given.get("unit") or ""),
            metric=str(given.get("metric") or given["name"]),
        )
        for given in search.objectives
    ]  # fmt: skip


def read_answer(store: Store, name: str) -> Answer:
    """The answer of the search of that name; raises `StorageError` for an unknown one."""
    search = store.search(name)
    objectives = search.objectives
    found = points(store.trials_frame(name), store.metrics_frame(name, ("test", "cost")), objectives)
    return Answer(
        search=search,
        state=search.state_now(datetime.now(UTC)),
        points=found,
        front=front(found, objectives),
        validity=Validity.of(search, _measured(store, found)),
    )


def _measured(store: Store, found: DataFrame) -> TrialRecord | None:
    complete = found[found["state"] == "complete"]
    return store.trial(int(complete["trial"].iloc[0])) if len(complete) else None
