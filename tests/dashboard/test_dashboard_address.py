"""What a URL says, and which trial a click means: pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from archsearch_dashboard.address import (
    clicked_row,
    clicked_trial,
    option_of,
    query,
    trial_of,
    trials_of,
)


@pytest.mark.parametrize(
    ("text", "trial"),
    [("7", 7), ("0", 0), (None, None), ("", None), ("-7", None), ("7a", None), ("٣", None), ("9" * 40, None)],
)
def test_trial_of(text: str | None, trial: int | None) -> None:
    assert trial_of(text) == trial


@pytest.mark.parametrize(
    ("text", "trials"),
    [
        ("3,17,20", (3, 17, 20)),
        (" 3 , 17", (3, 17)),
        ("3,3,x,,4", (3, 4)),
        (None, ()),
        ("1,2,3,4,5,6,7,8", (1, 2, 3, 4, 5, 6)),
    ],
)
def test_trials_of(text: str | None, trials: tuple[int, ...]) -> None:
    assert trials_of(text) == trials


@pytest.mark.parametrize(
    ("text", "option"),
    [("kv_bytes", "kv_bytes"), ("KV bytes", None), ("nonsense", None), ("", None), (None, None)],
    ids=["key", "label", "unknown", "empty", "none"],
)
def test_an_option_is_named_by_its_key(text: str | None, option: str | None) -> None:
    assert option_of(text, ["traffic", "kv_bytes"]) == option


def test_a_number_is_named_by_its_digits() -> None:
    assert option_of("4096", [1024, 4096]) == 4096
    assert option_of("4,096 tokens", [1024, 4096]) is None


def test_query_reads_back() -> None:
    made = query(search="a & b", trial=7, trials=(3, 4), patterns=["full*3", "kda*3"])
    assert made == {"search": "a & b", "trial": "7", "trials": "3,4", "pattern": ["full*3", "kda*3"]}
    assert trials_of(str(made["trials"])) == (3, 4)
    assert query() == {}


@pytest.mark.parametrize(
    ("points", "trial"),
    [
        ([{"x": 1.0, "customdata": [12]}], 12),
        ([{"x": 1.0, "customdata": {"0": 12}}], 12),
        ([{"x": 1.0}], None),
        ([{"customdata": None}, {"customdata": [5]}], 5),
        ([], None),
    ],
    ids=["list", "mapping", "a-line", "a-line-then-a-point", "nothing"],
)
def test_clicked_trial(points: list[dict[str, Any]], trial: int | None) -> None:
    assert clicked_trial({"selection": {"points": points}}) == trial


def test_nothing_was_ever_clicked() -> None:
    assert clicked_trial({}) is None
    assert clicked_row({}) is None
    assert clicked_row({"selection": {"rows": []}}) is None
    assert clicked_row({"selection": {"rows": [3]}}) == 3
