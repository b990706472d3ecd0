"""How long a comparison takes in which every architecture has optimiser steps of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_fakes import fake_measurement

from archsearch.registry import Registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.estimate import estimate
from archsearch.search.plan import Campaign
from archsearch.search.survey import survey
from archsearch.storage import Store

RATE = 1000.0


def posed(registry: Registry, match: str, **search: Any) -> Problem:
    spec = {
        "name": match.replace("_", "-"),
        "model": {"d_model": 16, "n_layers": 2, "n_heads": 1, "channel_mixer": "none"},
        "space": {"pattern": "listed", "architectures": ["sliding(window=8)", "gated-deltanet", "kda"]},
        "compare": {"match": match},
        "search": search,
        "tasks": [{"name": "mqar", "setting": "easy"}],
        "recipe": {"steps": 300, "seeds": 2, "learning_rates": [0.01, 0.003]},
        "objectives": {"maximize": ["recall"]},
    }
    return Problem.of(SearchSpec.from_dict(spec), registry)


def test_steps_of_its_own_are_counted_for_each_architecture(installed: Registry, tmp_path: Path) -> None:
    plain = posed(installed, "tokens")
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        search = store.create_search("known", plain.spec.to_json(), [])
        campaign = Campaign(plain, store=store, search_id=search)
        campaign.prepare(survey(plain))
        order = campaign.next()
        assert not isinstance(order, str)
        for run in order.runs:
            made = fake_measurement(plain, installed, order.arch, run.task, run.seed, scores={"sliding": 0.5})
            campaign.measured(order, run, made | {"tokens_per_second": RATE})
        campaign.finished(order)
        same = estimate(plain, store)
        for problem in (posed(installed, "train_flops"), posed(installed, "train_flops", references=["full"])):
            found = estimate(problem, store)
            archs = [*problem.space.all(), *problem.references]
            task = problem.tasks["mqar"]
            steps = [problem.recipe_of(arch, "mqar").steps_for(task.seq_len) for arch in archs]
            assert len(set(steps)) == len(archs), "each has its own"
            tokens = sum(steps) * problem.spec.recipe.batch_size * task.seq_len
            assert found.seconds == pytest.approx(tokens * 2 * 2 / RATE)
            assert found.seconds != pytest.approx(same.seconds)
