"""Quantities: what a person writes is read, what is no finite number is refused, and nothing takes long."""

from __future__ import annotations

import math

import pytest

from archsearch.costs import parse_context
from archsearch.errors import SpecError
from archsearch.units import MOST, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("18 MiB", "bytes", 18 * 2**20),
        ("2 GFLOP", "FLOP", 2e9),
        ("1_000", "", 1000),
        ("1.5e3k", "", 1.5e6),
        (7, "bytes", 7),
        (0.5, "", 0.5),
        ("1 E", "", 1e18),
        (2**70, "", 2.0**70),
    ],
)
def test_read(text: str | int | float, unit: str, value: float) -> None:
    assert parse_quantity(text, unit=unit) == value


ABSURD: list[object] = [
    "1e400",
    "nan",
    "inf",
    "-inf",
    "1e25",
    "9999999 E",
    "9" * 5000,
    "1" * 100_000 + "x",
    " " * 100_000,
    "1_" * 50_000,
    "\ud800",
    "\0",
    "1__0",
    "1_",
    True,
    False,
    None,
    [1],
    math.inf,
    -math.inf,
    math.nan,
    10**25,
    -(10**400),
    10**400,
]


@pytest.mark.parametrize("text", ABSURD, ids=range(len(ABSURD)))
@pytest.mark.parametrize("unit", ["bytes", "FLOP", ""])
def test_refused_in_a_short_sentence(text: object, unit: str) -> None:
    with pytest.raises(SpecError, match="write a number with a unit, as") as caught:
        parse_quantity(text, unit=unit)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["1e400", "nan", "0", "1.5", "-1", "9" * 5000, 10**400])
def test_contexts_are_whole_and_finite(text: str | int) -> None:
    with pytest.raises(SpecError):
        parse_context(text)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (18 * 2**20, "bytes", "18 MiB"),
        (1023, "bytes", "1023 B"),
        (2e9, "FLOP", "2 GFLOP"),
        (0, "", "0"),
        (math.nan, "bytes", "not a number"),
        (math.inf, "FLOP", "infinite"),
        (-math.inf, "", "minus infinite"),
        (MOST, "", "1e+06 E"),
        (1e30, "FLOP", "1e+12 EFLOP"),
        (2.0**100, "bytes", "1.13e+15 PiB"),
    ],
)
def test_format(value: float, unit: str, shown: str) -> None:
    assert format_quantity(value, unit=unit) == shown
