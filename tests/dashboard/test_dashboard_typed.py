"""Whatever can be typed: URLs and boxes of every page take anything, and say in words what they cannot use."""

from __future__ import annotations

import pytest
from dashboard_samples import open_page, texts, well
from grids import grid

KEYS = {
    "searches": ("page",),
    "front": ("x", "y", "z", "show", "logx", "logy", "max_state_bytes", "max_decode_flops", "below"),
    "architecture": ("trial", "cost", "context"),
    "compare": ("trials", "cost", "context"),
    "matters": ("objective", "share", "place", "lines"),
    "mixers": ("size", "mixers", "cost", "mixer"),
}
"""What each page reads of its URL, beside the search."""

TABLE_KEYS = ("page", "state", "kind", "find", "order", "rising")
TYPED: dict[str, str | list[str]] = {
    "huge": "9" * 400,
    "overflow": "1e400",
    "negative": "-1",
    "nul": "a\0b",
    "long": "x" * 100_000,
    "empty": "",
    "repeated": ["1", "2", "<b>"],
    "markup": "<b>:material/home: $x$ **y**",
    "infinite": "inf",
    "nan": "nan",
    "turned": "\u202eabc\x1b[2J",
    "commas": "," * 5_000,
}
QUICK = ("overflow", "repeated")


@pytest.mark.parametrize("typed", grid(TYPED, QUICK))
@pytest.mark.parametrize("slug", KEYS)
def test_any_value_of_every_key(url: str, slug: str, typed: str | list[str]) -> None:
    app = well(open_page(slug, search="quick", **dict.fromkeys(KEYS[slug], typed)))
    assert len(texts(app)) < 50_000


@pytest.mark.parametrize("typed", grid(TYPED, QUICK))
def test_any_search_is_the_newest(url: str, typed: str | list[str]) -> None:
    app = well(open_page("front", search=typed))
    assert "Front of quick" in texts(app)
    assert len(texts(app)) < 20_000


@pytest.mark.parametrize("typed", grid(TYPED, QUICK))
def test_any_filter_of_the_trials(url: str, typed: str | list[str]) -> None:
    for key in TABLE_KEYS:
        app = well(open_page("front", search="quick", below="All trials", **{key: typed}))
        assert app.dataframe or "No trial is like that" in texts(app), key


@pytest.mark.parametrize(("typed", "page"), [("1", 1), ("2", 1), ("0", 1), ("-1", 1), ("9" * 17, 1), ("1e400", 1)])
def test_a_page_that_is_not_there_is_the_first(url: str, typed: str, page: int) -> None:
    app = well(open_page("front", search="quick", below="All trials", page=typed))
    assert app.number_input(key="page_option").value == page


PATTERNS = {
    "dots": "." * 20_000,
    "brackets": "[" * 500,
    "nested": "[" * 500 + "full" + "]*9" * 500,
    "number": f"full*{'9' * 400}",
    "window": f"sliding(window=1{'0' * 300})",
    "argument": "full(resolver=1)",
    "markup": "<b>full</b> :material/home:",
    "nul": "full\0",
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_any_pattern_is_compared_or_refused_in_words(url: str, pattern: str) -> None:
    app = open_page("compare", search="quick", pattern=pattern)
    assert not app.exception
    assert not any("cannot be drawn" in error.value for error in app.error)
    assert len(texts(app)) < 20_000
