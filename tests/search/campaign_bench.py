"""A campaign with a worker that measures at once."""

from __future__ import annotations

from typing import Any, Self

from search_fakes import fake_measurement, fake_registry, fake_spec

from archsearch.search.ledger import TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import survey
from archsearch.storage import Store, TrialRecord

REGISTRY = fake_registry()


class CampaignBench:
    """The search of `fake_spec` in a store, also one of memory; ``trained`` has the digest and the seed of each run."""

    def __init__(self, store: Any, *, resume: bool = False, **tables: Any) -> None:
        spec = SearchSpec.from_dict(fake_spec(**tables))
        self.problem, self.store, self.search = Problem.of(spec, REGISTRY), store, 1
        if resume:
            self.search = store.search(spec.name).id
            store.mark_orphans(self.search)
        elif isinstance(store, Store):
            objectives = [objective.to_json() for objective in self.problem.objectives]
            self.search = store.create_search(spec.name, spec.to_json(), objectives)
        self.campaign = Campaign(self.problem, store=store, search_id=self.search)
        self.trained: list[tuple[str, int]] = []

    def luck(self, digest: str, seed: int) -> float:
        """What a seed adds to the score of a candidate."""
        return 0.0

    def prepare(self) -> Self:
        self.campaign.prepare(survey(self.problem))
        return self

    def work(self, order: TrialOrder, *, runs: int | None = None, diverged: bool = False) -> None:
        """Answers an order, or so many of its runs."""
        for run in order.runs[:runs]:
            luck = self.luck(order.arch.digest, run.seed)
            found = fake_measurement(
                self.problem, REGISTRY, order.arch, run.task, run.seed, diverged=diverged, luck=luck
            )
            self.campaign.measured(order, run, found)
            self.trained.append((order.arch.digest, run.seed))
        if runs is None:
            self.campaign.finished(order)

    def run(self, limit: int = 500) -> Self:
        """Works until the campaign is done."""
        for _ in range(limit):
            order = self.campaign.next()
            if isinstance(order, TrialOrder):
                self.work(order)
            elif order == "done":
                return self
        raise AssertionError("the campaign does not end")

    def trials(self, **wanted: Any) -> list[TrialRecord]:
        """The trials of the store, those of `kinds` or `states`."""
        found: list[TrialRecord] = self.store.trials(self.search, **wanted)
        return found
