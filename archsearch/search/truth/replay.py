"""Replaying a search: the real campaign, which draws, refuses and looks up, over a table in place of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.measurement import Measurement
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import Survey, survey
from archsearch.search.truth.archive import Archive, Trained
from archsearch.search.truth.case import Case
from archsearch.search.truth.memory import MemoryStore
from archsearch.search.truth.table import Row
from archsearch.training import form_of, measurement_key

DEVICE = "cpu"
"""The kind of device that replayed results are told to be of: the search has no others to mistake them for."""

Curve = tuple[tuple[int, float], ...]
Rule = Callable[[TrialOrder, Run, Curve], str]
"""Early stopping: told an order, its run and the curve so far at each look; why the trial ends there, or ""."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A search as it went: the trials in their order, and the draws that were refused or known."""

    sampler: str
    seed: int
    trained: tuple[Trained, ...]
    refused: int
    repeated: int


def posed(case: Case, sampler: str, *, trials: int, seed: int) -> Problem:
    """The case as a search's problem: its sampler, its trials, and its seed, which is that of the sampler too."""
    spec = case.problem.spec.to_json()
    search: dict[str, Any] = {
        "trials": trials,
        "sampler": sampler,
        "references": False,
        "confirm_seeds": 0,
        "max_draws": spec["search"]["max_draws"],
    }
    changed = SearchSpec.from_dict({**spec, "seed": seed, "search": search})
    return replace(case.problem, spec=changed)


def table_seed(case: Case, seed: int) -> int:
    """The seed of the table that a search's seed stands for: those that are whole, in turn."""
    return case.seeds[seed % len(case.seeds)]


def replay(
    case: Case,
    problem: Problem,
    *,
    stop: Rule | None = None,
    second_seed_every: int = 0,
    looked: Survey | None = None,
) -> Replay:
    """Runs the search of `posed` to its end, each training answered by the table; `stop` may end one at a look.

    With ``second_seed_every`` every so many-th of the trials trains a point of the front again, with the table's next
    seed: one that has fewest seeds, and of those the one without which the front would lose most. The sampler is not
    told; the front is then by means over seeds.

    ``looked`` is the survey of the space, which is equal for every search of a case.
    """
    spec = problem.spec
    trained: list[Trained] = []
    campaign = Campaign(problem, store=MemoryStore(), search_id=1, device=DEVICE)
    campaign.prepare(survey(problem) if looked is None else looked)
    while (order := campaign.next()) != "done":
        if isinstance(order, str):  # nothing runs between two orders: it draws on
            continue
        trained.append(_train(case, problem, campaign, order, stop))
        if second_seed_every and len(trained) % second_seed_every == second_seed_every - 1:
            again = _again(case, trained, table_seed(case, spec.seed + 1))
            trained += [] if again is None else [again]
        if len(trained) >= spec.search.trials:
            break
    progress = campaign.progress
    return Replay(
        sampler=spec.search.sampler,
        seed=spec.seed,
        trained=tuple(trained),
        refused=progress.refused,
        repeated=progress.repeated,
    )


def _train(case: Case, problem: Problem, campaign: Campaign, order: TrialOrder, stop: Rule | None) -> Trained:
    """Answers an order run by run, as workers do."""
    steps, seed = 0, table_seed(case, problem.spec.seed)
    for run in order.runs:
        row = case.table.row(order.arch.digest, case.tasks[run.task], table_seed(case, run.seed))
        for looks in range(1, len(row.curve) + 1 if stop is not None else 0):
            assert stop is not None
            why = stop(order, run, row.curve[:looks])
            if why:
                campaign.failed(order, why)
                return Trained(digest=order.arch.digest, seed=seed, steps=steps + row.curve[looks - 1][0], stopped=why)
        steps += row.steps
        campaign.measured(order, run, measurement(problem, order.arch, run, row).to_json())
        if row.status == "diverged":
            break
    campaign.finished(order)
    return Trained(digest=order.arch.digest, seed=seed, steps=steps)


def _again(case: Case, trained: list[Trained], seed: int) -> Trained | None:
    """The point of the front that is to be trained with another seed; None where each has been."""
    front = Archive.of(case, trained)
    left = [digest for digest in front.points if seed not in front.seeds[digest]]
    if not left:
        return None
    digest = max(left, key=front.contribution)
    steps = sum(case.table.row(digest, task, seed).steps for task in case.tasks.values())
    return Trained(digest=digest, seed=seed, steps=steps)


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
