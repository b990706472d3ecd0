"""Climbing: a search and the rungs above it, run one after another; what they cost is told, and asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import quiet_console, table, tell

if TYPE_CHECKING:
    from rich.console import Console

    from archsearch.search import Problem, SearchOutcome, SearchSpec
    from archsearch.search.ladder.cost import LadderCost, RungCost
    from archsearch.search.tables.ladder import RungTable
    from archsearch.storage import SearchRecord, Store

LadderYesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Begin a ladder whose cost is above the limits of [ladder] without asking.")
]


@dataclass(frozen=True, kw_only=True)
class Climb:
    """A problem to be searched, its ladder to be climbed; `going_on` are the arguments of `resume_search` where a
    search of its name may go on."""

    problem: Problem
    store: Store
    going_on: Mapping[str, Any] | None = None

    def weigh(self, *, yes: bool, json: bool) -> None:
        """Tells what a ladder that is new, or has new or other rungs, would cost; asks where that is above its
        limits.

        Raises `SpecError` where nobody can be asked; ends the command where the answer is no.
        """
        spec = self.problem.spec
        if not spec.rung or (self._is_there and self._rungs_there == spec.rung):
            return
        from archsearch.search.ladder.cost import ladder_cost

        cost = ladder_cost(self.problem, self.store)
        print_cost(cost, quiet_console(stderr=json))
        beyond = cost.beyond(spec.ladder.max_flops, spec.ladder.max_hours)
        if beyond and not yes:
            _ask(f"The ladder takes {', and '.join(beyond)}.")

    def run(self, drive: Callable[[Callable[..., SearchOutcome], Problem], SearchOutcome]) -> SearchOutcome:
        """The search, and the rungs above it; the outcome of the last that was driven."""
        from archsearch.search import resume_search, run_search

        search: Callable[..., SearchOutcome] = run_search
        goes_on = self.going_on is not None and self._is_there
        if goes_on:
            search = partial(resume_search, **self.going_on or {})
        if not self.problem.spec.rung:
            return drive(search, self.problem)
        from archsearch.search.ladder.climb import GoingOn, climb

        given = self.going_on or {}
        how = GoingOn(wait=bool(given.get("wait")), retrain=bool(given.get("retrain")))
        first = None if goes_on and not given.get("allowed") else search
        return climb(self.problem, first, drive, store=self.store, tell=tell, going_on=how)

    @property
    def _is_there(self) -> bool:
        return self.problem.spec.name in [record.name for record in self.store.searches()]

    @property
    def _rungs_there(self) -> tuple[RungTable, ...]:
        from archsearch.search import SearchSpec

        return SearchSpec.from_dict(self.store.search(self.problem.spec.name).spec).rung


def first_rung(store: Store, name: str, *, trials: int | None) -> SearchSpec:
    """The spec of a search, or of the first rung of the ladder that it is a rung of."""
    from archsearch.analysis.ladder_reading import first_rung as root_of
    from archsearch.errors import SpecError
    from archsearch.search import SearchSpec

    spec = SearchSpec.from_dict(store.search(name).spec)
    if spec.climbed is None:
        return spec
    if trials is not None:
        raise SpecError(
            f'"{name}" is a rung, whose trials are what was carried up: --trials goes with "{spec.climbed.ladder}"'
        )
    return SearchSpec.from_dict(root_of(store, name).spec)


def next_of_ladder(search: SearchRecord) -> list[str]:
    """The command that shows the ladder which a search belongs to; none without one."""
    climbed = search.spec.get("climbed")
    if not climbed and not search.spec.get("rung"):
        return []
    name = climbed["ladder"] if isinstance(climbed, Mapping) else search.name
    return [f"archsearch ladder {shlex.quote(str(name))}"]


def print_cost(cost: LadderCost, out: Console) -> None:
    """The cost of each rung and of all, on `out`."""
    columns = [
        "search",
        ">d_model",
        ">layers",
        ">heads",
        ">trained",
        ">seeds",
        ">trainings",
        ">training FLOPs",
        ">hours",
    ]
    out.print(table(columns, map(_cells, cost.rungs), title="The ladder, before it is begun"))
    low, high = cost.flops
    hours = (
        "how long that takes is not known: the database has no training of these tasks"
        if cost.hours is None
        else f"at most about {cost.hours:.3g} hours, by the speed of {cost.known:,} trainings in the database"
    )
    out.print(f"in all {_flops(low)} to {_flops(high)}; {hours}", soft_wrap=True)


def _cells(rung: RungCost) -> list[str]:
    return [
        rung.name,
        str(rung.d_model),
        str(rung.n_layers),
        str(rung.n_heads),
        _range(*rung.trained),
        str(rung.seeds),
        _range(*rung.trainings),
        f"{_flops(rung.flops[0])} to {_flops(rung.flops[1])}",
        "?" if rung.hours is None else f"{rung.hours:.3g}",
    ]


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _flops(value: float) -> str:
    from archsearch.units import format_quantity

    return format_quantity(value, unit="FLOP")


def _ask(what: str) -> None:
    from archsearch.errors import SpecError

    if not sys.stdin.isatty():
        raise SpecError(f"{what} Nobody can be asked here whether to begin: add --yes, or raise the limit in [ladder]")
    tell(f"{what} Begin? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        tell("nothing was begun")
        raise typer.Exit(1)
