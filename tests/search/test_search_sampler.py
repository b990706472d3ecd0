"""Samplers: seeds, constraints, failures, rebuilding, and what a child inherits."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.arch import ArchSpec
from archsearch.search.genes import child
from archsearch.search.model_choice import Judged
from archsearch.search.problem import Problem, Verdict
from archsearch.search.sampler import Proposal, Sampler
from archsearch.search.spec import SearchSpec

REGISTRY = fake_registry()
SAMPLERS = ["ehvi", "nsga2", "nsga3", "tpe", "random"]


def problem(sampler: str = "nsga2", **tables: Any) -> Problem:
    tables.setdefault("search", {"sampler": sampler, "trials": 16})
    return Problem.of(SearchSpec.from_dict(fake_spec(**tables)), REGISTRY)


def make(posed: Problem, seed: int = 0, drawn: int = 0) -> Sampler:
    return Sampler(posed.space, posed.objectives, posed.spec.search, seed=seed, drawn=drawn, judged=Judged.of(posed))


def values(arch: ArchSpec, verdict: Verdict) -> dict[str, float]:
    score = sum({"dense": 0.3, "window": 0.1, "recurrent": 0.2}[layer.mixer] for layer in arch.layers)
    return {"recall": score, "state_bytes": verdict.costs["state_bytes@1024"]}


def advance(sampler: Sampler, posed: Problem, count: int) -> list[Proposal]:
    proposals = []
    for _ in range(count):
        proposal = sampler.ask()
        verdict = posed.judge(proposal.arch)
        if verdict.trainable:
            sampler.scored(proposal.number, values(proposal.arch, verdict), verdict)
        else:
            sampler.refused(proposal.number, verdict)
        proposals.append(proposal)
    return proposals


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_seeds_give_equal_candidates(name: str) -> None:
    posed = problem(name, budget={"state_bytes": "100 KiB"})
    one, other, third = (advance(make(posed, seed), posed, 30) for seed in (0, 0, 1))
    assert [found.arch.digest for found in one] == [found.arch.digest for found in other]
    assert [found.arch.digest for found in one] != [found.arch.digest for found in third]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_sampler_goes_on_from_the_same_trials_without_repeating_its_draws(name: str) -> None:
    posed = problem(name, budget={"state_bytes": "100 KiB"})
    sampler = make(posed)
    earlier = advance(sampler, posed, 20)
    resumed = make(posed, drawn=20)
    for proposal in earlier:
        verdict = posed.judge(proposal.arch)
        resumed.replay(proposal.params, values(proposal.arch, verdict) if verdict.trainable else None, verdict)
    mine, theirs = (each._study.get_trials() for each in (resumed, sampler))
    for one, other in zip(mine, theirs, strict=True):
        assert (one.params, one.values, one.constraints) == (other.params, other.values, other.constraints)
        assert one.distributions == other.distributions
        generations = [
            {key: value for key, value in trial.system_attrs.items() if "generation" in key} for trial in (one, other)
        ]
        assert generations[0] == generations[1]
    assert advance(resumed, posed, 5)


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe"])
def test_a_violated_budget_teaches_the_sampler(name: str) -> None:
    posed = problem(name, budget={"state_bytes": "40 KiB"}, search={"sampler": name, "trials": 40})
    found = advance(make(posed), posed, 120)
    passed = [posed.judge(proposal.arch).trainable for proposal in found]
    assert sum(passed[-60:]) > 1.3 * sum(passed[:20]) / 20 * 60 or all(passed[-20:])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_value_that_is_no_number_is_told_as_a_failure(name: str) -> None:
    posed = problem(name)
    sampler = make(posed)
    for told in (
        {"recall": math.nan, "state_bytes": 1.0},
        {"state_bytes": 1.0},
        {"recall": math.inf, "state_bytes": 1.0},
    ):
        proposal = sampler.ask()
        sampler.scored(proposal.number, told, posed.judge(proposal.arch))
    states = [trial.state for trial in sampler._study.get_trials()]
    assert states == [optuna.trial.TrialState.FAIL] * 3
    assert advance(sampler, posed, 20)


def test_gp_goes_beyond_its_start() -> None:
    posed = problem("gp", budget={"state_bytes": "100 KiB"}, search={"sampler": "gp", "startup_trials": 4})
    assert len(advance(make(posed), posed, 6)) == 6


def test_what_is_refused_never_beats_what_is_feasible() -> None:
    posed = problem(budget={"state_bytes": "100 KiB"})
    sampler = make(posed)
    advance(sampler, posed, 40)
    best = sampler._study.best_trials
    assert best
    assert all(value <= 0 for trial in best for value in trial.constraints.values())


def test_random_candidates_can_be_asked_of_any_sampler() -> None:
    posed = problem()
    sampler = make(posed)
    advance(sampler, posed, 20)
    seen = set()
    for _ in range(40):
        proposal = sampler.ask_random()
        seen.add(proposal.arch.digest)
        sampler.failed(proposal.number)
    assert len(seen) > 30


def parent(params: dict[str, Any], value: float, excess: float = 0.0) -> optuna.trial.FrozenTrial:
    distributions = {name: optuna.distributions.CategoricalDistribution((0, chosen)) for name, chosen in params.items()}
    return optuna.create_trial(
        params=params, distributions=distributions, values=[value, 0.0], constraints={"budget": excess}
    )


def test_a_child_takes_each_layer_whole_from_one_parent() -> None:
    one = parent({"layer0.mixer": "a", "layer0.a.x": 1, "layer0.a.y": 1, "layer1.mixer": "a", "layer1.a.x": 1}, 1.0)
    other = parent({"layer0.mixer": "b", "layer0.b.x": 2, "layer1.mixer": "b", "layer1.b.x": 2}, 1.0)
    directions = [optuna.study.StudyDirection.MINIMIZE] * 2
    mixed = 0
    for seed in range(300):
        made = child([one, other], directions, random.Random(seed))
        for layer in ("layer0", "layer1"):
            owners = {name.split(".")[1] for name in made if name.startswith(layer) and not name.endswith("mixer")}
            owners |= {made[f"{layer}.mixer"]} if f"{layer}.mixer" in made else set()
            assert len(owners) <= 1
        mixed += {made.get("layer0.mixer"), made.get("layer1.mixer")} == {"a", "b"}
    assert mixed > 30


def test_parents_within_the_budget_are_preferred() -> None:
    directions = [optuna.study.StudyDirection.MINIMIZE] * 2
    good, bad = parent({"layer0.mixer": "good"}, 9.0), parent({"layer0.mixer": "bad"}, 0.0, excess=0.5)
    found = [child([good, bad], directions, random.Random(seed)) for seed in range(2000)]
    inherited = [made["layer0.mixer"] for made in found if made]
    assert inherited.count("good") > 2 * inherited.count("bad")
