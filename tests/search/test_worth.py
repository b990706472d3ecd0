"""What candidates are thought to be worth: both ends of the costs count, and every end of the front is weighed."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from archsearch.arch import ArchSpec
from archsearch.registry import Registry
from archsearch.search.model_choice import Judged
from archsearch.search.problem import Problem
from archsearch.search.sampler import Sampler
from archsearch.search.spec import SearchSpec
from archsearch.search.worth import MOST_WEIGHED, most_hopeful, worth

COSTS = np.array([False, True, True])
IDEAL = np.array([-1.0, -np.inf, -np.inf])


def cheap_and_dear(cheap: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidates that cost next to nothing and may score a little more, and as many that cost a thousand times that by
    two costs that rise together, of which more is expected."""
    rng = np.random.default_rng(0)
    costs = np.concatenate([1.0 + rng.random(cheap), 1000.0 + rng.random(cheap)])
    mean = np.column_stack([np.repeat([-0.3, -0.5], cheap), costs, costs * 3.0])
    deviation = np.zeros_like(mean)
    deviation[:, 0] = 0.1
    return mean, deviation


@pytest.mark.parametrize("cheap", [100, 2 * MOST_WEIGHED])
def test_what_is_dear_by_two_costs_is_worth_its_gain(cheap: int) -> None:
    mean, deviation = cheap_and_dear(cheap)
    measured = np.array([[-0.30, 1.0, 3.0], [-0.32, 1.4, 4.2], [-0.15, 1.2, 3.6]])
    found = worth(mean, deviation, measured, COSTS, IDEAL)
    assert found.argmax() >= cheap
    assert found[:cheap].max() > 0


def test_units_and_scales_of_costs_do_not_matter() -> None:
    mean, deviation = cheap_and_dear(50)
    measured = np.array([[-0.30, 1.0, 3.0], [-0.32, 1.4, 4.2]])
    units = np.array([1.0, 1024.0, 1e-6])
    found = worth(mean, deviation, measured, COSTS, IDEAL)
    assert worth(mean * units, deviation, measured * units, COSTS, IDEAL) == pytest.approx(found)


def test_a_cost_that_all_share_tells_nothing() -> None:
    mean, deviation = cheap_and_dear(20)
    mean[:, 2] = 7.0
    found = worth(mean, deviation, np.array([[-0.3, 1.0, 7.0], [-0.2, 1.2, 7.0]]), COSTS, IDEAL)
    assert np.isfinite(found).all()
    assert (found > 0).any()


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_every_end_is_among_the_most_hopeful(objectives: int) -> None:
    losses = np.random.default_rng(objectives).random((400, objectives))
    found = most_hopeful(losses, 60)
    assert len(set(found.tolist())) == 60
    assert set(losses.argmin(axis=0).tolist()) <= set(found.tolist())


@pytest.mark.parametrize("count", [3, 12])
def test_as_many_as_wanted_are_hopeful_or_all(count: int) -> None:
    assert len(most_hopeful(np.arange(24.0).reshape(8, 3), count)) == min(count, 8)


def quickstart(registry: Registry) -> Problem:
    """Eight cheap linear mixers and a window beside three that are dear by both costs."""
    return Problem.of(SearchSpec.load(Path(__file__).parents[2] / "examples" / "quickstart.toml"), registry)


def recall(arch: ArchSpec) -> float:
    """All is found where a full layer stands, and of the rest about a quarter, more with sparse layers."""
    mixers = [layer.mixer for layer in arch.layers]
    luck = np.random.default_rng(zlib.crc32(arch.digest.encode())).normal()
    sparse = mixers.count("moba") + mixers.count("nsa")
    return 0.99 if "full" in mixers else 0.25 + 0.12 * sparse + 0.04 * float(luck)


@pytest.mark.parametrize("seed", range(3))
def test_a_search_beside_references_tries_what_a_dear_layer_buys(registry: Registry, seed: int) -> None:
    posed = quickstart(registry)
    sampler = Sampler(posed.space, posed.objectives, posed.spec.search, seed=seed, judged=Judged.of(posed))
    for arch in posed.references:
        verdict = posed.judge(arch)
        sampler.beside(arch, verdict)
        sampler.scored_beside(arch, values(posed, arch), verdict)
    found = []
    for _ in range(posed.spec.search.trials):
        proposal = sampler.ask()
        found.append(proposal.arch)
        sampler.scored(proposal.number, values(posed, proposal.arch), posed.judge(proposal.arch))
    layers = [sum(layer.mixer == "full" for layer in arch.layers) for arch in found]
    assert layers.count(1) > 0
    assert layers.count(0) > 1


def values(posed: Problem, arch: ArchSpec) -> dict[str, float]:
    costs = posed.judge(arch).costs
    return {one.name: costs[one.metric] if one.is_cost else recall(arch) for one in posed.objectives}
