"""Power laws: recovered where the points determine one, refused where they do not, and where two cross."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from archsearch.analysis.power_law import EXTRAPOLATED, Point, PowerLaw, law_crossings, power_law

SIZES = (1e12, 1e13, 1e14)


def points(floor: float, scale: float, exponent: float, *, error: float = float("nan")) -> list[Point]:
    return [Point(flops=size, loss=floor + scale * (size / 1e13) ** -exponent, error=error) for size in SIZES]


def fitted(*numbers: float, error: float = float("nan")) -> PowerLaw:
    found = power_law(points(*numbers, error=error))
    assert isinstance(found, PowerLaw), found
    return found


@pytest.mark.parametrize("numbers", [(1.5, 0.5, 0.3), (0.0, 2.0, 0.1), (0.02, 0.4, 1.0)])
def test_a_law_is_recovered_from_three_sizes(numbers: tuple[float, float, float]) -> None:
    law = fitted(*numbers)
    assert (law.floor, law.exponent) == pytest.approx((numbers[0], numbers[2]), abs=0.01)
    assert law.loss(np.array([1e15])) == pytest.approx(numbers[0] + numbers[1] * 100 ** -numbers[2], abs=0.01)
    assert law.band(np.array([1e15])) is None
    assert law.exponent_band is None


def test_the_noise_of_seeds_makes_a_band_that_holds_the_law_and_widens_beyond_the_points() -> None:
    law = fitted(1.5, 0.5, 0.3, error=0.005)
    at = np.array([1e13, 1e15])
    band = law.band(at)
    assert band is not None
    low, high = band
    truth = 1.5 + 0.5 * (at / 1e13) ** -0.3
    assert ((low < truth) & (truth < high)).all()
    assert high[1] - low[1] > 1.5 * (high[0] - low[0])
    assert law.exponent_band is not None
    assert law.exponent_band[0] < 0.3 < law.exponent_band[1]


def test_noise_that_few_seeds_tell_makes_a_wider_band() -> None:
    def width(freedom: float) -> float:
        given = [replace(point, freedom=freedom) for point in points(1.5, 0.5, 0.3, error=0.005)]
        law = power_law(given)
        assert isinstance(law, PowerLaw), law
        low, high = law.band(np.array([1e13])) or (np.zeros(1), np.zeros(1))
        return float(high[0] - low[0])

    assert width(3) > 1.3 * width(100)


def test_three_sizes_cannot_speak_against_a_law() -> None:
    assert not fitted(1.5, 0.5, 0.3).checked
    more = power_law([*points(1.5, 0.5, 0.3), Point(flops=1e15, loss=1.5 + 0.5 * 100**-0.3, error=float("nan"))])
    assert isinstance(more, PowerLaw)
    assert more.checked


def test_bounds_of_a_crossing_hold_where_the_laws_cross() -> None:
    rng, held = np.random.default_rng(2), 0

    def noisy(*numbers: float) -> PowerLaw:
        law = power_law([replace(one, loss=one.loss + 0.01 * rng.normal()) for one in points(*numbers, error=0.01)])
        assert isinstance(law, PowerLaw), law
        return law

    for _ in range(10):
        found = law_crossings({"steep": noisy(0.5, 1.2, 0.3), "flat": noisy(0.5, 1.0, 0.1)})
        held += any(one.low < 1e13 * 1.2 ** (1 / 0.2) < one.high for one in found if one.better == "steep")
    assert held >= 8


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (points(1.0, 0.5, 0.3)[:2], "2 sizes"),
        ([*points(1.0, 0.5, 0.3)[:2], Point(flops=1.02e13, loss=1.4, error=0.1)], "2 sizes"),
        (list(reversed([Point(flops=size, loss=1e-13 * size, error=0.1) for size in SIZES])), "does not fall"),
        ([Point(flops=size, loss=2.0 - 1e-14 * size, error=0.1) for size in SIZES], "follow no power law"),
        ([Point(flops=size, loss=float("nan"), error=0.1) for size in SIZES], "no finite loss"),
        (points(1.5, 0.05, 0.3, error=0.1), "noise of seeds leaves it open"),
        ([], "0 sizes"),
        ([Point(flops=size, loss=0.5 - 0.3 * index, error=0.1) for index, size in enumerate(SIZES)], "loss below 0"),
        (
            [Point(flops=size, loss=loss, error=0.01) for size, loss in zip(SIZES, (1.0, 1.3, 0.9), strict=True)],
            "misses",
        ),
        ([Point(flops=1e13, loss=1.0 - 0.1 * index, error=0.01) for index in range(3)], "1 size of"),
    ],
    ids=[
        "two",
        "two-alike",
        "rises",
        "falls-faster",
        "not-finite",
        "noisy",
        "none",
        "negative",
        "not-monotone",
        "equal-flops",
    ],
)
def test_a_law_that_is_not_determined_is_refused_with_the_reason(given: list[Point], why: str) -> None:
    found = power_law(given)
    assert isinstance(found, str)
    assert why in found


def test_a_crossing_is_predicted_with_its_bounds() -> None:
    laws = {"steep": fitted(0.5, 1.2, 0.3, error=0.002), "flat": fitted(0.5, 1.0, 0.1, error=0.002)}
    (crossing,) = law_crossings(laws)
    expected = 1e13 * 1.2 ** (1 / 0.2)
    assert (crossing.better, crossing.worse) == ("steep", "flat")
    assert crossing.flops == pytest.approx(expected, rel=0.1)
    assert crossing.low < crossing.flops < crossing.high
    assert crossing.sure > 0.95
    assert not crossing.beyond


def test_a_crossing_beyond_the_points_is_marked_and_one_too_far_is_not_told() -> None:
    near = {"steep": fitted(0.5, 1.9, 0.3), "flat": fitted(0.5, 1.0, 0.1)}
    (crossing,) = law_crossings(near)
    assert crossing.beyond
    assert crossing.low != crossing.low
    assert SIZES[-1] < crossing.flops < SIZES[-1] * EXTRAPOLATED
    assert law_crossings({"steep": fitted(0.5, 5.0, 0.3), "flat": fitted(0.5, 1.0, 0.1)}) == []
    assert law_crossings({"one": near["flat"]}) == []
