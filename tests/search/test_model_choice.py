"""The sampler that models metrics and knows costs: what it proposes, and that it is rebuilt."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.analysis.hypervolume import volume
from archsearch.arch import ArchSpec
from archsearch.search.candidates import every_choice
from archsearch.search.features import Features
from archsearch.search.model_choice import Judged
from archsearch.search.problem import Problem
from archsearch.search.sampler import Proposal, Sampler
from archsearch.search.spec import SearchSpec
from archsearch.search.surrogate import Surrogate

REGISTRY = fake_registry()
SMALL = {"mixers": ["dense", "window", "recurrent"], "window": {"window": [8]}, "recurrent": {"norm": ["rms"]}}


def problem(sampler: str = "ehvi", **tables: Any) -> Problem:
    tables.setdefault("space", SMALL)
    tables.setdefault("search", {"sampler": sampler, "trials": 24})
    return Problem.of(SearchSpec.from_dict(fake_spec(**tables)), REGISTRY)


def make(posed: Problem, seed: int = 0, drawn: int = 0) -> Sampler:
    return Sampler(posed.space, posed.objectives, posed.spec.search, seed=seed, drawn=drawn, judged=Judged.of(posed))


def recall(arch: ArchSpec) -> float:
    """A dense layer finds most when a window stands right before it and nothing dense after it, and less elsewhere."""
    names = [layer.mixer for layer in arch.layers]
    found = 0.1 + 0.05 * len(set(names)) + 0.05 * names.count("recurrent")
    if "dense" in names:
        found += 0.2
        after_window = any(pair == ("window", "dense") for pair in pairwise(names))
        found += 0.4 * after_window * (names.count("dense") == 1)
    return found


def values(posed: Problem, arch: ArchSpec) -> dict[str, float]:
    costs = posed.judge(arch).costs
    return {one.name: costs[one.metric] if one.is_cost else recall(arch) for one in posed.objectives}


def advance(sampler: Sampler, posed: Problem, count: int) -> list[Proposal]:
    proposals = []
    for _ in range(count):
        proposal = sampler.ask()
        verdict = posed.judge(proposal.arch)
        if verdict.trainable:
            sampler.scored(proposal.number, values(posed, proposal.arch), verdict)
        else:
            sampler.refused(proposal.number, verdict)
        proposals.append(proposal)
    return proposals


def test_what_is_proposed_is_new_and_within_the_budget() -> None:
    posed = problem(budget={"state_bytes": "70 KiB"})
    trainable = {arch.digest for arch in posed.space.all() if posed.judge(arch).trainable}
    assert 10 < len(trainable) < posed.space.count()
    found = [proposal.arch.digest for proposal in advance(make(posed), posed, len(trainable))]
    assert len(set(found)) == len(found)
    assert set(found) == trainable


def test_the_first_is_the_cheapest_and_the_start_has_every_mixer() -> None:
    posed = problem(budget={"state_bytes": "70 KiB"})
    trainable = [arch for arch in posed.space.all() if posed.judge(arch).trainable]
    cheapest = min(posed.judge(arch).costs["state_bytes@1024"] for arch in trainable)
    for seed in range(3):
        start = [proposal.arch for proposal in advance(make(posed, seed), posed, posed.spec.search.first_random)]
        assert posed.judge(start[0]).costs["state_bytes@1024"] == cheapest
        assert {layer.mixer for arch in start for layer in arch.layers} == {"dense", "window", "recurrent"}


def test_one_that_is_left_is_proposed_and_after_it_draws_are_random() -> None:
    posed = problem(space={"mixers": ["dense", "recurrent"], "dense": {"rope": [1.0]}, "recurrent": {"norm": ["rms"]}})
    sampler = make(posed)
    found = {proposal.arch.digest for proposal in advance(sampler, posed, posed.space.count())}
    assert len(found) == posed.space.count()
    assert sampler.ask().arch.digest in found


def test_a_resumed_sampler_goes_on_as_another_that_is_resumed() -> None:
    posed = problem(budget={"state_bytes": "70 KiB"})
    earlier = advance(make(posed), posed, 10)
    resumed = [make(posed, drawn=10) for _ in range(2)]
    for sampler in resumed:
        for proposal in earlier:
            sampler.replay(proposal.params, values(posed, proposal.arch), posed.judge(proposal.arch))
    one, other = ([proposal.arch.digest for proposal in advance(sampler, posed, 6)] for sampler in resumed)
    assert one == other
    assert not set(one) & {proposal.arch.digest for proposal in earlier}


def test_what_is_trained_beside_the_proposals_is_known() -> None:
    space = {"mixers": ["dense", "window"], "window": {"window": [4, 8]}}
    posed = problem(space=space, budget={"state_bytes": "70 KiB"})
    scored, failed, running, *_ = [arch for arch in posed.space.all() if posed.judge(arch).trainable]
    beyond = next(arch for arch in posed.space.all() if not posed.judge(arch).trainable)
    foreign = ArchSpec.parse("recurrent", REGISTRY, posed.spec.model)
    sampler = make(posed)
    for arch in (scored, failed, running, beyond, foreign):
        sampler.beside(arch, posed.judge(arch))
    for arch in (scored, beyond, foreign):
        sampler.scored_beside(arch, values(posed, arch), posed.judge(arch))
    sampler.scored_beside(failed, None, posed.judge(failed))
    trainable = sum(posed.judge(arch).trainable for arch in posed.space.all())
    found = {proposal.arch.digest for proposal in advance(sampler, posed, trainable - 3)}
    assert len(found) == trainable - 3
    assert not found & {scored.digest, failed.digest, running.digest}


def test_it_comes_to_the_true_hypervolume_in_fewer_trials_than_random_draws() -> None:
    posed = problem()
    archs = {arch.digest: arch for arch in posed.space.all()}
    losses = {
        digest: [one.sign * values(posed, arch)[one.name] for one in posed.objectives] for digest, arch in archs.items()
    }
    edge = np.max(list(losses.values()), axis=0) + np.array([0.1, 1000.0])
    whole = volume(np.array(list(losses.values())), edge)

    def trials_to_most(name: str, seed: int) -> int:
        sampler, seen = make(problem(name), seed), []
        for number in range(1, 45):
            (proposal,) = advance(sampler, posed, 1)
            seen.append(losses[proposal.arch.digest])
            if volume(np.array(seen), edge) > 0.95 * whole:
                return number
        return 45

    modelled, drawn = ([trials_to_most(name, seed) for seed in range(5)] for name in ("ehvi", "random"))
    assert median(modelled) < 0.7 * median(drawn)


def test_workers_at_a_time_are_not_sent_to_one_place() -> None:
    posed = problem()
    sampler = make(posed)
    advance(sampler, posed, 8)
    at_once = [sampler.ask().arch.digest for _ in range(6)]
    assert len(set(at_once)) == 6


def test_failures_and_values_that_are_none_are_not_proposed_again() -> None:
    posed = problem()
    sampler = make(posed)
    lost = set()
    for number in range(8):
        proposal = sampler.ask()
        lost.add(proposal.arch.digest)
        if number % 2:
            sampler.failed(proposal.number)
        else:
            told = {"recall": math.nan, "state_bytes": 1.0}
            sampler.scored(proposal.number, told, posed.judge(proposal.arch))
    found = {proposal.arch.digest for proposal in advance(sampler, posed, 10)}
    assert len(lost) == 8
    assert not lost & found


@pytest.mark.parametrize(
    "objectives",
    [
        {"maximize": ["recall"], "minimize": []},
        {"maximize": [], "minimize": ["state_bytes"]},
        {"maximize": ["recall"], "minimize": ["state_bytes", "decode_flops", "weight_bytes"]},
    ],
    ids=["one metric", "costs alone", "four objectives, one of which is the same for all"],
)
def test_any_objectives_will_do(objectives: dict[str, Any]) -> None:
    posed = problem(objectives=objectives | {"context": 1024})
    assert len({proposal.arch.digest for proposal in advance(make(posed), posed, 12)}) == 12


def test_a_space_of_more_candidates_than_can_be_gone_through() -> None:
    posed = problem(
        model={"n_layers": 24},
        space={"mixers": ["dense", "window", "recurrent"], "window": {"window": [4, 8]}},
        budget={"state_bytes": "150 KiB"},
        search={"sampler": "ehvi", "trials": 16, "startup_trials": 3},
    )
    assert posed.space.count() > 10**12
    found = advance(make(posed), posed, 5)
    assert all(posed.judge(proposal.arch).trainable for proposal in found)
    assert len({proposal.arch.digest for proposal in found}) == 5


@pytest.mark.parametrize(
    "space",
    [
        SMALL,
        {**SMALL, "pattern": "periodic", "period": 2},
        {**SMALL, "pattern": "ratio", "ratios": [1, 2]},
        {**SMALL, "backbone": {"n_heads": [1, 2, 4], "short_conv": [0, 4]}},
    ],
    ids=["free", "periodic", "ratio", "backbones"],
)
def test_every_candidate_of_a_small_space_is_gone_through_and_has_features(space: dict[str, Any]) -> None:
    posed = problem(space=space)
    found = {arch.digest: (params, arch) for params, arch in every_choice(posed.space)}
    assert found.keys() == {arch.digest for arch in posed.space.all()}
    archs = [arch for _, arch in found.values()]
    features = Features(posed.space, REGISTRY)
    encoded = features.encode(archs)
    kernels, own = features.kernels(encoded, encoded), features.own(encoded)
    assert np.allclose(np.diagonal(kernels, axis1=1, axis2=2), own)
    for kernel in kernels:
        assert np.linalg.eigvalsh(kernel).min() > -1e-9
    assert kernels.sum(axis=0).shape == (len(archs), len(archs))
    assert len(np.unique(kernels.sum(axis=0).round(9), axis=0)) == len(archs)  # no two look alike


def test_a_surrogate_learns_what_a_layer_is_worth_and_how_large_the_noise_is() -> None:
    posed = problem()
    archs = list(posed.space.all())
    rng = random.Random(0)
    worth = {"dense": 0.3, "window": 0.1, "recurrent": 0.2}
    truth = np.array([sum(worth[layer.mixer] for layer in arch.layers) for arch in archs])
    seen = rng.sample(range(len(archs)), len(archs) * 2 // 3)
    features = Features(posed.space, REGISTRY)
    encoded = features.encode(archs)
    kernels = features.kernels(encoded, encoded)
    surrogate = Surrogate(features.count)
    noisy = truth[seen] + np.array([rng.gauss(0.0, 0.02) for _ in seen])
    surrogate.fit(kernels[:, seen][:, :, seen], noisy)
    mean, deviation = surrogate.predict(kernels[:, :, seen], features.own(encoded))
    assert np.abs(mean - truth).mean() < 0.025
    assert np.abs(mean - truth).mean() < 0.3 * truth.std()
    assert (deviation > 0).all()
    assert 0.004 < surrogate.noise < 0.06


@pytest.mark.parametrize("place", [0, -1])
def test_a_surrogate_finds_what_an_end_of_the_model_is_worth_by_few_trials(place: int) -> None:
    posed = problem()
    archs = list(posed.space.all())
    truth = np.array([0.3 + 0.4 * (arch.layers[place].mixer == "dense") for arch in archs])
    features = Features(posed.space, REGISTRY)
    encoded = features.encode(archs)
    kernels = features.kernels(encoded, encoded)
    for seed in range(3):
        seen = random.Random(seed).sample(range(len(archs)), len(archs) // 3)
        surrogate = Surrogate(features.count)
        surrogate.fit(kernels[:, seen][:, :, seen], truth[seen])
        mean, _ = surrogate.predict(kernels[:, :, seen], features.own(encoded))
        assert np.corrcoef(mean, truth)[0, 1] > 0.9


def test_equal_values_are_no_trouble() -> None:
    posed = problem()
    features = Features(posed.space, REGISTRY)
    encoded = features.encode(list(posed.space.all())[:5])
    kernels = features.kernels(encoded, encoded)
    surrogate = Surrogate(features.count)
    surrogate.fit(kernels, np.full(5, 0.4))
    mean, deviation = surrogate.predict(kernels, features.own(encoded))
    assert np.allclose(mean, 0.4)
    assert np.isfinite(deviation).all()
