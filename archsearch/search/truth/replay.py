"""Replaying a search: the real campaign, which draws, refuses, repeats and stops, with a table for its workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.measurement import Measurement
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import Survey, survey
from archsearch.search.tables.search import EarlyStopTable, SamplerName, SearchTable
from archsearch.search.truth.archive import Trained
from archsearch.search.truth.case import Case
from archsearch.search.truth.memory import MemoryStore
from archsearch.search.truth.table import Row
from archsearch.training import form_of, measurement_key

DEVICE = "cpu"
"""The kind of device that replayed results are told to be of: the search has no others to mistake them for."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A search as it went: the trials in their order, and the draws that were refused or known."""

    trained: tuple[Trained, ...]
    refused: int
    repeated: int


def posed(
    case: Case,
    sampler: str,
    *,
    trials: int,
    seed: int,
    seeds: int = 1,
    second_seeds: float = 0.0,
    early_stop: EarlyStopTable | None = None,
    go_on: bool = False,
) -> Problem:
    """The case as a search's problem: its sampler, its trials, its first seed, which is that of the sampler too, how
    many seeds each candidate is trained with, and what else of ``[search]`` is replayed. With ``go_on`` the search
    begins as one of so many trials does, and then draws on until it has trained all that there is."""
    spec = case.problem.spec.to_json()
    search: dict[str, Any] = {
        "trials": trials,
        "sampler": sampler,
        "references": False,
        "confirm_seeds": 0,
        "max_draws": spec["search"]["max_draws"],
        "second_seeds": second_seeds,
        "early_stop": early_stop,
    }
    if go_on:
        if sampler != "random":  # what follows from the number of trials stays that of the search
            start = SearchTable(trials=trials, sampler=cast(SamplerName, sampler)).first_random
            search["population" if sampler.startswith("nsga") else "startup_trials"] = start
        search["trials"] = max(trials, len(case.feasible))
    recipe = {**spec["recipe"], "seeds": seeds}
    return replace(case.problem, spec=SearchSpec.from_dict({**spec, "seed": seed, "search": search, "recipe": recipe}))


def table_seed(case: Case, seed: int) -> int:
    """The seed of the table that a search's seed stands for: those that are whole, in turn."""
    return case.seeds[seed % len(case.seeds)]


def replay(
    case: Case, problem: Problem, *, looked: Survey | None = None, enough: Callable[[Trained], bool] | None = None
) -> Replay:
    """Runs the search of `posed` to its end, one order at a time, each training answered by the table, look by look.

    ``looked`` is the survey of the space, which is equal for every search of a case; ``enough`` is told each trial, and
    says whether it was the last one that is wanted.
    """
    trained: list[Trained] = []
    campaign = Campaign(problem, store=MemoryStore(), search_id=1, device=DEVICE)
    campaign.prepare(survey(problem) if looked is None else looked)
    while (order := campaign.next()) != "done":
        if not isinstance(order, str):  # nothing runs between two orders: it draws on
            trained.append(_train(case, problem, campaign, order))
            if enough is not None and enough(trained[-1]):
                break
    progress = campaign.progress
    return Replay(trained=tuple(trained), refused=progress.refused, repeated=progress.repeated)


def _train(case: Case, problem: Problem, campaign: Campaign, order: TrialOrder) -> Trained:
    """Answers an order run by run, as workers do."""
    digest, of_table = order.arch.digest, {run: table_seed(case, run.seed) for run in order.runs}
    rows = {run: case.table.row(digest, case.tasks[run.task], seed) for run, seed in of_table.items()}
    seeds, in_full = tuple(dict.fromkeys(of_table.values())), sum(row.steps for row in rows.values())
    whole, steps = Trained(digest=digest, seeds=seeds, steps=0, in_full=in_full), 0
    for run, row in rows.items():
        stop = None
        for looks in range(1, len(row.curve) if problem.spec.search.early_stop is not None else 0):
            stop = campaign.looked(order, run, row.curve[:looks])
            if stop is not None:
                campaign.pruned(order, stop)
                return replace(whole, steps=steps + row.curve[looks - 1][0], stopped=stop.reason)
        steps += row.steps
        found = measurement(problem, order.arch, run, row).to_json()
        if run != order.runs[-1]:
            stop = campaign.looked(order, run, row.curve, found)
        campaign.measured(order, run, found)
        if stop is not None:
            campaign.pruned(order, stop)
            return replace(whole, steps=steps, stopped=stop.reason)
        if row.status == "diverged":
            break
    campaign.finished(order)
    return replace(whole, steps=steps)


def measurement(problem: Problem, arch: ArchSpec, run: Run, row: Row) -> Measurement:
    """A row of the table as a worker would hand it in, made by the source that is installed: the searcher sees no
    difference, and none of it leaves the replay."""
    task, recipe, registry = problem.tasks[run.task], problem.spec.training, problem.registry
    key = measurement_key(arch, task, recipe, run.seed, registry, device=DEVICE, form=form_of(DEVICE))
    return Measurement(
        key=key,
        digest=arch.digest,
        pattern=problem.pattern(arch),
        arch=arch.to_json(),
        task=task.label,
        task_options=task.to_json(),
        metric=task.metric,
        direction=task.direction,
        recall=task.recall,
        chance=task.chance,
        recipe=recipe.model_dump(mode="json"),
        seed=run.seed,
        status=_status(row),
        reason=None if row.status == "complete" else "it diverged in the table",
        learning_rate=row.learning_rate,
        steps=row.steps,
        validation=row.validation,
        test=row.test,
        curve=tuple({"step": step, task.metric: value} for step, value in row.curve),
    )


def _status(row: Row) -> Any:
    if row.status not in ("complete", "diverged"):
        raise SpecError(f'the table has a run of status "{row.status}": known are complete and diverged')
    return row.status
