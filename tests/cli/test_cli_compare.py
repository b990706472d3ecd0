"""``archsearch compare``: tables of a stored search, its remarks, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import add_trial
from tiny_spec import tiny_spec
from typer.testing import Result

from archsearch.storage import Store

Run = Callable[..., Result]


def fill(url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("held", {"compare": {"baseline": "full"}}, [])
        add_trial(store, search, "linear full", costs=(4.0, 2e6), accuracies=[0.90, 0.91, 0.92])
        add_trial(store, search, "full full", costs=(8.0, 2e6), accuracies=[0.50, 0.52, 0.51])
        add_trial(store, search, "moba full", costs=(9.0, 2e6), state="infeasible", reason="over budget")


def test_a_search_is_shown_against_its_baseline(run: Run, url: str) -> None:
    fill(url)
    shown = run("compare", "held", "--baseline", "full full")
    assert (shown.exit_code, shown.exception) == (0, None)
    text = " ".join(shown.stdout.split())
    assert "mqar, on test" in text
    assert "0.910 ± 0.006" in text
    assert "+0.400" in text
    assert "better" in text
    assert "in any of 1 comparisons" in text
    assert "not compared: moba full is infeasible: over budget" in text
    data = json.loads(run("compare", "held", "--baseline", "linear full", "--json").stdout)
    assert data["baseline"] == "linear full"
    other = data["architectures"][1]["tasks"]["mqar"]
    assert other["clear"] is True
    assert other["against"]["mean"] == pytest.approx(-0.4)


def test_what_cannot_be_compared_is_one_sentence(run: Run, url: str, tmp_path: Path) -> None:
    fill(url)
    (tmp_path / "tiny.toml").write_text(tiny_spec(3))
    for words, said in (
        (["held", "--resume"], "is the name of a search, which is shown"),
        (["tiny.toml"], "tiny.toml has no [compare] table"),
        (["none"], 'no search "none"'),
        (["held", "--baseline", "ful full"], "is none of the architectures"),
    ):
        refused = run("compare", *words)
        assert refused.exit_code != 0
        assert said in str(refused.exception), refused.exception
