"""Searches over mixers of the field: readers that need what they read, and two mixers side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import field_parallel
import field_yoco

from archsearch import ArchSpec, load_registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.plan import Campaign
from archsearch.search.sampler import Sampler
from archsearch.search.space import ReplayDraw
from archsearch.search.survey import survey
from archsearch.storage import Store
from archsearch.training import evaluate

REGISTRY = load_registry([field_parallel, field_yoco])


def test_a_search_trains_no_reader_without_what_it_reads(tmp_path: Path) -> None:
    spec = SearchSpec.from_dict(
        {
            "name": "yoco",
            "model": {"d_model": 8, "n_layers": 3, "n_heads": 1, "channel_mixer": "none"},
            "space": {"mixers": ["field-yoco", "field-yoco-kv"]},
            "tasks": [{"name": "copying", "options": {"seq_len": 8, "items": 2, "symbols": 8, "noise_tokens": 4}}],
            "recipe": {"steps": 2, "batch_size": 4, "learning_rates": [0.01], "eval_every": 2},
            "objectives": {"maximize": ["copying.accuracy"], "minimize": ["state_bytes"], "context": 64},
            "search": {"trials": 20, "confirm_seeds": 0},
        }
    )
    problem = Problem.of(spec, REGISTRY)
    assert [arch.pattern(REGISTRY) for arch in problem.references] == ["full*3", "field-yoco-kv*3"]
    with Store.open(f"sqlite:///{tmp_path / 'yoco.db'}") as store:
        search = store.create_search(spec.name, spec.to_json(), [aim.to_json() for aim in problem.objectives])
        campaign = Campaign(problem, store=store, search_id=search)
        campaign.prepare(survey(problem))
        trained = worked_through(campaign, problem)
        found = {trial.pattern: trial for trial in store.trials(search, kinds=["search"])}
    assert campaign.progress.ended == "all 8 candidates of the space were tried"
    assert trained == {"full*3", *(pattern for pattern in found if pattern.startswith("field-yoco-kv"))}
    refused = {pattern: trial for pattern, trial in found.items() if not pattern.startswith("field-yoco-kv")}
    assert len(found) == 8
    assert len(refused) == campaign.progress.refused == 4
    assert {trial.state for trial in refused.values()} == {"infeasible"}
    assert all('mixer "field-yoco", layer 0: it reads the cache' in trial.reason for trial in refused.values())
    assert campaign.progress.trained == 3  # the fourth was a reference
    producers = {pattern: problem.judge(ArchSpec.parse(pattern, REGISTRY, problem.space.model)) for pattern in trained}
    cached = {pattern: verdict.costs["state_bytes@64"] for pattern, verdict in producers.items() if "yoco" in pattern}
    assert cached["field-yoco-kv*3"] - cached["field-yoco-kv*2 field-yoco"] == 64 * 2 * 8 * 2  # bytes of one cache
    assert cached["field-yoco-kv*2 field-yoco"] - cached["field-yoco-kv field-yoco*2"] == 64 * 2 * 8 * 2


def worked_through(campaign: Campaign, problem: Problem) -> set[str]:
    """The patterns of what a campaign has trained, to its end."""
    trained = set()
    while (order := campaign.next()) != "done":
        assert order != "wait"
        trained.add(order.arch.pattern(REGISTRY))
        for run in order.runs:
            task = problem.tasks[run.task]
            measured = evaluate(order.arch, task, problem.spec.recipe, run.seed, registry=REGISTRY)
            campaign.measured(order, run, measured.to_json())
        campaign.finished(order)
    return trained


def test_a_search_draws_two_mixers_side_by_side_with_options_of_their_own() -> None:
    posed = Problem.of(
        SearchSpec.from_dict(
            {
                "name": "parallel",
                "model": {"d_model": 16, "n_layers": 2, "n_heads": 2},
                "space": {
                    "mixers": ["field-parallel", "full"],
                    "full": {"rope": [0.0]},
                    "field-parallel": {"a": ["kda(value_dim=0)", "sliding(window=8)"]},
                },
                "tasks": [{"name": "mqar", "setting": "compact"}],
                "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"]},
                "search": {"sampler": "nsga2", "population": 4},
            }
        ),
        REGISTRY,
    )
    sampler = Sampler(posed.space, posed.objectives, posed.spec.search, seed=0)
    drawn: dict[str, Any] = {}
    for _ in range(40):
        proposal = sampler.ask()
        drawn |= proposal.params
        assert posed.space.draw(ReplayDraw(proposal.params)).digest == proposal.arch.digest
        assert ArchSpec.parse(proposal.arch.pattern(REGISTRY), REGISTRY, posed.space.model) == proposal.arch
        verdict = posed.judge(proposal.arch)
        if verdict.trainable:
            sampler.scored(proposal.number, {"recall": 0.5, "state_bytes": verdict.costs["state_bytes@32768"]}, verdict)
        else:
            sampler.refused(proposal.number, verdict)
    assert {"layer0.field-parallel.a", "layer1.field-parallel.a.kda.key_dim"} <= set(drawn)
    assert "layer0.field-parallel.b.sliding.window" in drawn
    assert not any(".a.sliding.window" in parameter for parameter in drawn)
    assert {part.name for part in posed.parts()} >= {"mixer:field-parallel", "mixer:linear", "mixer:sliding"}
