"""A bench on which ladders are climbed without workers: every order is answered at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from search_fakes import fake_measurement, fake_registry, fake_spec

from archsearch.analysis.ladder import Ladder
from archsearch.analysis.ladder_reading import read_ladder
from archsearch.search.drive import SearchOutcome
from archsearch.search.ladder.climb import Search, climb
from archsearch.search.ledger import TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.progress import Progress
from archsearch.search.runner import run_search
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import survey
from archsearch.storage import Store

REGISTRY = fake_registry()
RUNGS = [
    {"keep": 4, "at_most": 6, "d_model": 32, "n_layers": 6, "steps": 8, "seeds": 2, "context": "2Ki"},
    {"keep": 2, "d_model": 64, "n_layers": 7, "n_heads": 4, "seeds": 3},
]


def posed(rungs: list[dict[str, Any]] = RUNGS, **tables: Any) -> Problem:
    given = {"recipe": {"seeds": 2}, "search": {"trials": 6, "confirm_seeds": 0}} | tables
    return Problem.of(SearchSpec.from_dict(fake_spec(**given, rung=rungs)), REGISTRY)


class Killed(BaseException):
    """The driver is gone, and has set nothing in order."""


class Bench:
    """Drives searches with a worker that measures at once: better on wider models, with a little noise by seed.

    After ``ends`` trials it is stopped, or with ``killed`` is gone; with ``killed_between`` it is gone when a rung is
    about to begin."""

    def __init__(self, store: Store) -> None:
        self.store, self.driven, self.said = store, list[str](), list[str]()
        self.ends, self.killed, self.killed_between = 10_000, False, False

    def climb(self, problem: Problem, *, resume: bool = False, first: Search = run_search) -> SearchOutcome:
        search = None if resume else first
        return climb(problem, search, self.drive, store=self.store, tell=self._tell)

    def _tell(self, text: str) -> None:
        if self.killed_between:
            raise Killed
        self.said.append(text)

    def drive(self, search: Callable[..., SearchOutcome], problem: Problem) -> SearchOutcome:
        spec = problem.spec
        self.driven.append(spec.name)
        if search is run_search:
            objectives = [objective.to_json() for objective in problem.objectives]
            parts = [(part.name, part.version, part.digest) for part in problem.parts()]
            at = self.store.create_search(spec.name, json.loads(json.dumps(spec.to_json())), objectives, parts=parts)
        else:
            at = self.store.search(spec.name).id
            self.store.mark_orphans(at)
        campaign = Campaign(problem, store=self.store, search_id=at)
        campaign.prepare(survey(problem))
        state = self._run(campaign, problem)
        campaign.stopped("stopped")
        self.store.set_search_state(at, state)
        return SearchOutcome(name=spec.name, state=state, reason="", progress=Progress(), seconds=0.0)

    def _run(self, campaign: Campaign, problem: Problem) -> str:
        while (order := campaign.next()) != "done":
            if isinstance(order, TrialOrder):
                if self.ends == 0 and self.killed:
                    raise Killed
                if self.ends == 0:
                    return "cancelled"
                self.ends -= 1
                for run in order.runs:
                    campaign.measured(order, run, measured(problem, order, run.task, run.seed))
                campaign.finished(order)
        return "complete"

    def ladder(self) -> Ladder:
        return read_ladder(self.store, "fakes")


def measured(problem: Problem, order: TrialOrder, task: str, seed: int) -> dict[str, Any]:
    found = fake_measurement(problem, REGISTRY, order.arch, task, seed)
    steps, flops = problem.spec.recipe.steps, 1e6 * order.arch.model.d_model**2
    left = (1 - found["test"]["accuracy"]) * (flops * steps) ** -0.1 + 0.0005 * seed
    values = {"accuracy": 1 - left}
    return {**found, "validation": values, "test": values, "costs": {"train_flops": flops}, "steps": steps}
