"""The climb: a search, then each rung of its ladder, one after another, each a search of its own in the same store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from archsearch.errors import listing
from archsearch.search.changes import check_growth, refuse_changed_source, source_changes
from archsearch.search.drive import SearchOutcome
from archsearch.search.ladder.carry import next_rung
from archsearch.search.ladder.rungs import probe, rung_name
from archsearch.search.ladder.standing import check_standing
from archsearch.search.problem import Problem
from archsearch.search.progress import Progress
from archsearch.search.runner import resume_search, run_search
from archsearch.search.spec import SearchSpec
from archsearch.search.stored import parts_now
from archsearch.storage import Store

Search = Callable[..., SearchOutcome]
"""`run_search`, or `resume_search` with what it is allowed."""
Drive = Callable[[Search, Problem], SearchOutcome]
"""Runs a search of a problem to its end, where and as long as its caller wants."""
Tell = Callable[[str], None]

_log = logging.getLogger("archsearch.search")


@dataclass(frozen=True, kw_only=True)
class GoingOn:
    """How searches that are there already go on: `wait` and `retrain` as `resume_search` has them."""

    wait: bool = False
    retrain: bool = False


def climb(
    problem: Problem,
    first: Search | None,
    drive: Drive,
    *,
    store: Store,
    tell: Tell = _log.info,
    going_on: GoingOn | None = None,
) -> SearchOutcome:
    """Drives the search of `problem` by `first`, then each rung of its ladder, from where the ladder stands.

    Without `first` the search is in the store, and goes on unless it is complete. A rung is begun once the one below is
    complete; one that the store has keeps the survivors that it was begun with, whatever was measured below since. The
    outcome is that of the last search that was driven. Raises `SpecError` before anything is driven for a rung that
    cannot be, and for a search that stands in the place of one; what `run_search` and `resume_search` raise; and
    `NothingFeasibleError` where nothing can be carried up.
    """
    going_on = going_on or GoingOn()
    check_standing(problem.spec, store, new=first is run_search)
    for rung in range(2, len(problem.spec.rung) + 2):
        probe(problem, rung)
    outcome = drive(first, problem) if first is not None else _go_on(problem, drive, store, going_on)
    for rung in range(2, len(problem.spec.rung) + 2):
        if outcome.state != "complete":
            break
        outcome = _rung(problem, rung, drive, store=store, tell=tell, going_on=going_on)
    return outcome


def _go_on(problem: Problem, drive: Drive, store: Store, how: GoingOn) -> SearchOutcome:
    if not how.retrain and (done := complete(problem, store)) is not None:
        return done
    search = partial(resume_search, allowed=("search.concurrency",), wait=how.wait, retrain=how.retrain)
    return drive(search, problem)


def _rung(problem: Problem, rung: int, drive: Drive, *, store: Store, tell: Tell, going_on: GoingOn) -> SearchOutcome:
    name = rung_name(problem.spec.name, rung)
    if name in [record.name for record in store.searches()]:
        stored = SearchSpec.from_dict(store.search(name).spec)
        return _go_on(Problem.of(_as_free(stored, problem.spec), problem.registry), drive, store, going_on)
    spec = next_rung(problem, rung, store)
    for line in told(spec):
        tell(line)
    return drive(run_search, Problem.of(spec, problem.registry))


def _as_free(stored: SearchSpec, root: SearchSpec) -> SearchSpec:
    """The stored spec with what may be another without a word."""
    free = {"retries": root.search.retries, "concurrency": root.search.concurrency}
    search = stored.search.model_copy(update=free)
    return stored.model_copy(update={"resources": root.resources, "search": search})


def complete(problem: Problem, store: Store) -> SearchOutcome | None:
    """The outcome of a search that is complete already and of today's source; None for one that is to go on, as where
    candidates that were added wait.

    Raises `SpecError` where its spec is another one, or its source has changed since: the rungs above would be
    measured with another one.
    """
    record = store.search(problem.spec.name)
    if record.state != "complete" or store.proposals(record.id, waiting=True):
        return None
    check_growth(SearchSpec.from_dict(record.spec), problem.spec, ("search.concurrency",))
    now = {part.name: (part.version, part.digest) for part in parts_now(problem, store, record.id)}
    refuse_changed_source(problem.spec.name, source_changes(store.parts(record.id), now))
    return SearchOutcome(name=record.name, state=record.state, reason=record.reason, progress=Progress(), seconds=0.0)


def told(spec: SearchSpec) -> list[str]:
    """What is carried up to the rung of `spec`, and what is not, in sentences."""
    climbed = spec.climbed
    assert climbed is not None
    mine = [one for one in climbed.kept if one.why != "reference"]
    untold = sum(one.why == "untold" for one in mine)
    also = f", {untold} of them because noise does not tell them from the others" if untold else ""
    said = [
        f"rung {climbed.rung}, {spec.name}: {len(mine)} carried up from {climbed.below}{also}, with "
        f"{len(climbed.kept) - len(mine)} references"
    ]
    if climbed.without_noise:
        said.append(
            f"the noise of {listing(climbed.without_noise)} is not known, as no candidate has two seeds that differ: "
            "nothing was told apart, and ladders want recipe.seeds = 2 or more"
        )
    return said + [f"left behind: {pattern}: {reason}" for pattern, reason in climbed.left.items()]
