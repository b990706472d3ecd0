"""A value residual that is searched: what is drawn, what is refused, and what stands as the file has it."""

from __future__ import annotations

from typing import Any

from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec


def spec(**tables: Any) -> SearchSpec:
    return SearchSpec.from_dict(
        {
            "name": "residual",
            "model": {"d_model": 16, "n_heads": 2, "n_layers": 2, "channel_mixer": "none"},
            "space": {
                "mixers": ["full", "none"],
                "full": {"rope": 1.0},
                "backbone": {"value_residual": ["none", "learned"]},
            },
            "tasks": [{"name": "mqar"}],
            "objectives": {"maximize": ["mqar.accuracy"], "minimize": ["params"]},
            "search": {"trials": 2},
            **tables,
        }
    )


def test_a_search_draws_it_and_takes_no_candidate_twice(installed: Registry) -> None:
    problem = Problem.of(spec(), installed)
    verdicts = [(found, problem.judge(found).refusal) for found in problem.space.all()]
    refused = [found for found, reason in verdicts if reason is not None]
    assert (len(verdicts), len(refused)) == (8, 3)
    assert {found.model.value_residual for found in refused} == {"learned"}
    assert all("none" in [layer.mixer for layer in found.layers] for found in refused)


def test_that_of_the_file_stands_where_it_changes_nothing(installed: Registry) -> None:
    model = {"d_model": 16, "n_heads": 2, "n_layers": 2, "channel_mixer": "none", "value_residual": "learned"}
    problem = Problem.of(spec(model=model, space={"mixers": ["full", "none"], "full": {"rope": 1.0}}), installed)
    assert [problem.judge(found).refusal for found in (*problem.space.all(), *problem.references)] == [None] * 6
    assert problem.spec.to_json()["model"]["value_residual"] == "learned"
