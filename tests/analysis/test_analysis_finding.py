"""Finding: the sentence that a front allows, and no more."""

from __future__ import annotations

from math import nan
from statistics import fmean

import pytest

from archsearch.analysis.differences import SeedNoise
from archsearch.analysis.finding import Finding, FrontPoint, finding
from archsearch.analysis.objectives import Objective

RECALL = Objective(name="recall", direction="maximize")
STATE = Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@32768")
QUIET = SeedNoise(deviation=0.01, freedom=6)
UNKNOWN = SeedNoise(deviation=nan, freedom=0)


def point(pattern: str, values: list[float], cost: float, *, confirmed: bool = True) -> FrontPoint:
    """A point of three layers whose letters are its mixers, F for full."""
    return FrontPoint(
        pattern=pattern,
        values=dict(enumerate(values)),
        mean=fmean(values),
        cost=cost,
        full=pattern.count("F"),
        layers=len(pattern),
        confirmed=confirmed,
    )


def told(*points: FrontPoint, noise: SeedNoise = QUIET, gained: Objective = RECALL) -> Finding:
    found = finding(points, noise, gained, STATE, 3 * 2**20)
    assert found is not None
    return found


def test_a_clear_step_and_the_cheapest_within_noise_are_named() -> None:
    found = told(
        point("LLL", [0.30, 0.32], 2**10),
        point("LFL", [0.98, 0.99], 2**20),
        point("FFL", [0.985, 0.995], 2 * 2**20),
    )
    assert found.best.pattern == "FFL"
    assert found.cheapest is not None
    assert found.cheapest.pattern == "LFL"
    assert found.step is not None
    assert (found.step.fewer.pattern, found.step.more.pattern) == ("LLL", "LFL")
    assert found.sentence.startswith("One full layer of three takes recall to 0.985, where with no such layer the best")
    assert found.sentence.endswith(
        "the cheapest within noise of the best is LFL (state_bytes 1 MiB, 33% of full attention in every layer)"
    )
    assert found.to_json()["cheapest_within_noise"] == "LFL"


def test_a_step_within_noise_is_none() -> None:
    loud = SeedNoise(deviation=0.4, freedom=6)
    found = told(point("LLL", [0.3, 0.9], 2**10), point("LFL", [0.98, 0.99], 2**20), noise=loud)
    assert found.step is None
    assert "makes no difference in recall beyond its noise" in found.sentence
    assert found.cheapest is not None
    assert found.cheapest.pattern == "LLL"


def test_one_seed_each_tells_nothing() -> None:
    found = told(point("LLL", [0.3], 2**10), point("LFL", [0.99], 2**20), noise=UNKNOWN)
    assert (found.step, found.cheapest) == (None, None)
    assert found.sentence.startswith("Nothing tells yet what recall is worth")
    assert "takes" not in found.sentence


def test_only_confirmed_points_speak_where_there_are_any() -> None:
    lucky = point("SSS", [0.999], 2**8, confirmed=False)
    found = told(lucky, point("LLL", [0.30, 0.32], 2**10), point("LFL", [0.98, 0.99], 2**20))
    assert found.best.pattern == "LFL"
    assert told(lucky).best is lucky


def test_a_front_of_one_point_and_of_none() -> None:
    assert finding([], QUIET, RECALL, STATE, None) is None
    found = told(point("LFL", [0.98, 0.99], 2**20))
    assert found.sentence == "The best is LFL (state_bytes 1 MiB, 33% of full attention in every layer)"


def test_what_falls_is_better_where_less_is() -> None:
    loss = Objective(name="text.loss", direction="minimize")
    found = told(point("LLL", [2.0, 2.1], 2**10), point("LFL", [1.0, 1.1], 2**20), gained=loss)
    assert found.best.pattern == "LFL"
    assert found.step is not None
    assert "takes text.loss to 1.050" in found.sentence
    worse = told(point("LLL", [1.0, 1.1], 2**10), point("LFL", [2.0, 2.1], 2**20), gained=loss)
    assert worse.step is None
    assert worse.best.pattern == "LLL"


@pytest.mark.parametrize("values", [[0.5, nan], []], ids=["nan", "no-seed"])
def test_a_point_without_values_is_not_within_noise(values: list[float]) -> None:
    broken = FrontPoint(
        pattern="LLL", values=dict(enumerate(values)), mean=nan, cost=1.0, full=0, layers=3, confirmed=True
    )
    found = told(broken, point("LFL", [0.98, 0.99], 2**20), point("FFL", [0.97, 0.98], 2 * 2**20))
    assert found.cheapest is not None
    assert found.cheapest.pattern == "LFL"


def test_the_largest_clear_step_is_told() -> None:
    found = told(
        point("LLL", [0.30, 0.32], 2**10),
        point("LFL", [0.50, 0.51], 2**20),
        point("FFL", [0.98, 0.99], 2 * 2**20),
    )
    assert found.sentence.startswith("Two full layers of three take recall to 0.985, where with one the best has 0.505")
