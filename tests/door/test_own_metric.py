"""The example of a metric of one's own: it keeps the laws, and a whole search has it and speed as objectives."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archsearch import load_registry, open_store
from archsearch.search import Problem, SearchSpec

FILE = Path(__file__).parents[2] / "examples" / "own_metric.py"
NAMES: dict[str, Any] = runpy.run_path(str(FILE), run_name="own_metric")


def test_its_search_can_be_posed() -> None:
    problem = Problem.of(SearchSpec.from_dict(NAMES["SPEC"]), load_registry([NAMES["Induction"]()]))
    assert problem.timer is not None
    assert problem.evaluators == {"mqar": ("induction",)}
    assert problem.objectives[1].budget == 200 * 32 * 64


@pytest.mark.door
@pytest.mark.timeout(900)
def test_it_runs_as_it_stands(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(FILE)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("complete")
    with open_store(f"sqlite:///{tmp_path / 'own-metric.db'}") as store:
        search = store.search("own-metric")
        trials = [store.trial(trial.id) for trial in store.trials(search.id)]
        frame = store.metrics_frame(search.id)
    assert {trial.kind for trial in trials} == {"reference", "search", "confirm"}
    complete = [trial for trial in trials if trial.state == "complete"]
    for name in ("mqar.induction", "mqar.tokens_to_half"):
        for split in ("validation", "test"):
            rows = frame[(frame["name"] == name) & (frame["split"] == split)]
            assert set(rows["trial"]) == {trial.id for trial in complete}, f"{name} on {split}"
    assert all("evaluator:induction" in one.payload["versions"] for trial in complete for one in trial.measurements)
