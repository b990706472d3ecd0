"""A pruned trial on the command line: its reason, the curve that was cut short, and its place among the counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_samples import OBJECTIVES, SPEC, add_trial
from typer.testing import CliRunner

from archsearch.cli import app
from archsearch.storage import MetricValue, Store

REASON = "stopped at step 40 of 100 of mqar, seed 0: dominated by trial 4, 7, 9"


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'pruned.db'}"
    with Store.open(found) as store:
        search = store.create_search("early", SPEC, OBJECTIVES)
        trial = add_trial(store, search, "full", costs=(1e6, 1e4), state="running")
        curve = [
            MetricValue(name="mqar.accuracy", split="progress", value=step / 400, task="mqar", seed=0, step=step)
            for step in (20, 30, 40)
        ]
        store.set_trial_state(trial, "pruned", REASON, metrics=curve)
    return found


def call(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--storage", url])
    assert done.exit_code == 0, done.output
    return done.output


def test_show_tells_why_and_draws_the_curve_that_was_cut_short(url: str) -> None:
    text = call(url, "show", "1")
    assert ": pruned" in text.splitlines()[0]
    assert f"reason: {REASON}" in text
    assert "mqar.accuracy on validation until it was stopped (seed 0)" in text
    data = json.loads(call(url, "show", "1", "--json"))
    assert [(point["step"], point["value"]) for point in data["unfinished"]] == [(20, 0.05), (30, 0.075), (40, 0.1)]


def test_lists_count_and_find_it(url: str) -> None:
    (found,) = json.loads(call(url, "searches", "--json"))["searches"]
    assert (found["pruned"], found["complete"]) == (1, 0)
    assert "pruned" in call(url, "searches")
    (trial,) = json.loads(call(url, "trials", "early", "--json", "--state", "pruned"))["trials"]
    assert trial["trial"] == 1
