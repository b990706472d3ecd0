"""``archsearch report``: one file with everything, and errors in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from archsearch_dashboard.report.evidence import evidence_of
from cli_samples import OBJECTIVES, SPEC, add_trial
from typer.testing import Result

from archsearch.analysis.answer import read_answer
from archsearch.registry import Registry
from archsearch.storage import Store


def test_the_file_holds_the_front_the_commands_and_the_versions(
    run: Callable[..., Result], trials: dict[str, int], tmp_path: Path
) -> None:
    assert run("report", "quick", "-o", "front.html").exit_code == 0
    text = (tmp_path / "front.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "Front of quick" in text
    assert "archsearch evaluate &#x27;linear(update=delta) full&#x27;" in text
    assert f"trial {trials['confirm']}" in text.lower()
    assert "Versions" in text
    assert "2.13.0" in text
    assert text.count("plotly.js v") <= 1
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](https?:)?//""", outside)


def test_a_search_without_a_front_still_has_a_report(run: Callable[..., Result], url: str, tmp_path: Path) -> None:
    with Store.open(url) as store:
        store.create_search("bare", {}, [{"name": "recall", "direction": "maximize", "unit": ""}])
    assert run("report", "bare", "-o", "bare.html").exit_code == 0
    assert "has no trials yet" in (tmp_path / "bare.html").read_text()


def test_an_unknown_search_and_a_file_that_cannot_be_written_are_told(
    run: Callable[..., Result], trials: dict[str, int]
) -> None:
    assert 'no search "quikc" (did you mean "quick"?)' in str(run("report", "quikc", "-o", "x.html").exception)
    assert "name another file" in str(run("report", "quick", "-o", "no/such/folder.html").exception)


def test_text_of_a_search_is_escaped(url: str, registry: Registry) -> None:
    with Store.open(url) as store:
        search = store.create_search("hostile", SPEC, OBJECTIVES, plugins=[("<i>p</i>", "d", "1")])
        add_trial(store, search, "<script>alert</script>", costs=(1.0, 1.0), accuracies=(0.5,))
        parts = "".join(evidence_of(store, read_answer(store, "hostile"), registry))
    assert "&lt;script&gt;alert&lt;/script&gt;" in parts
    assert "<script>alert" not in parts
    assert "<i>p</i>" not in parts
