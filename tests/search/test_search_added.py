"""Added candidates on a real local Ray: a search that runs takes them up, and one that has ended when it is resumed."""

from __future__ import annotations

import pytest
from test_search_runner import Driven, driven, on_every_database

from archsearch.registry import Registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.added import read_candidate
from archsearch.storage import NewProposal, Store

__all__ = ["driven"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@on_every_database
def test_candidates_join_a_search_that_runs_and_one_that_has_ended(driven: Driven, registry: Registry) -> None:
    """One of them has a mixer beside the space, whose source the workers are held to as well."""
    driven.environ["ARCHSEARCH_OWNER"] = "ada"

    def add(*patterns: str) -> int:
        with Store.open(driven.url) as store:
            search = store.search("tiny")
            problem = Problem.of(SearchSpec.from_dict(search.spec), registry)
            archs = [read_candidate(pattern, problem) for pattern in patterns]
            new = [
                NewProposal(digest=arch.digest, arch=arch.to_json(), pattern=arch.pattern(registry)) for arch in archs
            ]
            store.propose(search.id, new, owner="grace")
            return search.id

    with driven.started(until="(reference) started", steps=20) as process:
        search = add("linear full")
        assert process.wait(480) == 0
    with Store.open(driven.url) as store:
        assert store.search("tiny").owner == "ada"
        (added,) = store.trials(search, kinds=["added"])
        assert (added.pattern, added.state) == ("linear full", "complete")
        assert "mixer:linear" in store.parts(search)
    before = driven.trained()
    add("full linear", "linear full")
    driven.finish("resume")
    with Store.open(driven.url) as store:
        assert [trial.state for trial in store.trials(search, kinds=["added"])] == ["complete"] * 2
        assert all(proposal.trial for proposal in store.proposals(search))
        assert len(store.trials(search, kinds=["search"])) >= 2
    assert driven.trained()[: len(before)] == before
    assert len(driven.trained()) == len(set(driven.trained()))
