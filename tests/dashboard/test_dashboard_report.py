"""The report: one file that needs no network and runs nothing that a search says."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from archsearch_dashboard.report.document import report
from dashboard_samples import HTML_NAME, LONG_NAME

from archsearch.analysis.answer import read_answer
from archsearch.storage import Store


class Tags(HTMLParser):
    """The tags with their attributes, and the text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._script = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if not self._script:
            self.text += data


def read(url: str, name: str) -> Tags:
    with Store.open(url, read_only=True) as store:
        written = report(read_answer(store, name))
    tags = Tags()
    tags.feed(written)
    return tags


def test_the_report_has_all_of_a_search(url: str) -> None:
    found = read(url, "quick")
    for words in (
        "Front of quick",
        "Valid for 3 layers of d_model 64",
        "0.920 (0.910 to 0.930)",
        "8 MiB",
        "confirmed",
        "5 of 11 measured",
        "state_bytes ≤ 18 MiB",
        "1 infeasible",
        "1 not exercised",
        "5 failed",
    ):
        assert words in found.text, words


def test_the_report_asks_no_network(url: str) -> None:
    for tag, attributes in read(url, "quick").tags:
        for name in ("src", "href"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or ""), (tag, attributes)


def test_names_are_no_markup(url: str) -> None:
    found = read(url, HTML_NAME)
    assert HTML_NAME in found.text
    assert "<img src=x onerror=alert(1)> **full**" in found.text
    assert not [tag for tag, attributes in found.tags if tag in ("img", "b", "i") or "onerror" in attributes]


@pytest.mark.parametrize("name", ["empty", "one-trial", "all-infeasible", "all-failed", "all-nan", "half", LONG_NAME])
def test_a_report_of_any_search(url: str, name: str) -> None:
    assert f"Front of {name}" in read(url, name).text
