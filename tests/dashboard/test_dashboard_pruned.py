"""A pruned trial: a group of its own beside the front, and its curve as far as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_samples import add_trial, new_search

from archsearch.analysis.answer import read_answer
from archsearch.storage import MetricValue, Store
from dashboard.figures.front import View, front_figure
from dashboard.queries import candidates, searches, trial

REASON = "stopped at step 40 of 100 of mqar, seed 1: dominated by trial 1, 2, 3"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'pruned.db'}") as opened:
        search = new_search(opened, "early")
        for pattern, accuracy in (("sliding(window=8)*3", 0.9), ("deltanet(key_dim=4)*3", 0.8)):
            add_trial(opened, search, pattern, (accuracy, accuracy))
        stopped = add_trial(opened, search, "kda(key_dim=4)*3", (0.2,), state="running")
        curve = [
            MetricValue(name="mqar.accuracy", split="progress", value=step / 400, task="mqar", seed=1, step=step)
            for step in (20, 40)
        ]
        opened.set_trial_state(stopped, "pruned", REASON, metrics=curve)
        yield opened


def test_it_is_in_a_group_of_its_own_and_on_no_front(store: Store) -> None:
    answer = read_answer(store, "early")
    groups = candidates.groups(answer)
    assert groups["pruned"]["trial"].tolist() == [3]
    elsewhere = [rows["trial"].tolist() for name, rows in groups.items() if name != "pruned"]
    assert 3 not in {*answer.front["trial"], *(one for listed in elsewhere for one in listed)}
    assert searches.trained(answer) == 3
    figure = front_figure(answer, View(x=answer.objectives[1], y=answer.objectives[0], show=candidates.SHOWN))
    (drawn,) = (trace for trace in figure.data if trace.name == "pruned")
    assert "stopped before its training had ended" in drawn.hovertext[0]


def test_its_curves_end_where_it_was_stopped(store: Store) -> None:
    found = trial.curves_frame(trial.trial_view(store, 3).record)
    last = found[found["seed"] == 1]
    assert last[["task", "name", "step", "value"]].to_numpy().tolist() == [
        ["mqar", "accuracy", 20, 0.05],
        ["mqar", "accuracy", 40, 0.1],
    ]
    assert set(found["seed"]) == {0, 1}
