"""A published spec of positions: accuracy at twice the trained length is compared, as its objectives ask."""

from __future__ import annotations

from pathlib import Path

from search_fakes import fake_measurement

from archsearch.analysis.comparison import compare
from archsearch.registry import Registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.plan import Campaign
from archsearch.search.survey import survey
from archsearch.storage import Store

POSITIONS = Path(__file__).parents[2] / "docs" / "results" / "positions.toml"


def test_accuracy_at_twice_the_length_is_compared_pairwise(installed: Registry, tmp_path: Path) -> None:
    problem = Problem.of(SearchSpec.load(POSITIONS), installed)
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        search = store.create_search("positions", problem.spec.to_json(), [one.to_json() for one in problem.objectives])
        campaign = Campaign(problem, store=store, search_id=search)
        campaign.prepare(survey(problem))
        while not isinstance(order := campaign.next(), str):
            rope = order.arch.layers[1].options.model_dump()["rope"]
            for run in order.runs:
                made = fake_measurement(
                    problem, installed, order.arch, run.task, run.seed, scores={"linear": 0.9, "full": 0.9}
                )
                twice = {"accuracy@2x": 0.6 - 0.3 * rope + 0.01 * run.seed * (1 + rope)}
                campaign.measured(order, run, {**made, "test": {**made["test"], **twice}})
            campaign.finished(order)
        found = compare(store, "positions", installed)
    assert found.scored == ("niah", "niah.accuracy@2x")
    assert found.comparisons == 4
    assert [row.scores["niah"].verdict for row in found.others] == ["within noise", "within noise"]
    quarter, whole = (row.scores["niah.accuracy@2x"] for row in found.others)
    assert whole.against is not None
    assert whole.against.mean < -0.25
    assert (quarter.verdict, whole.verdict) == ("worse", "worse")
