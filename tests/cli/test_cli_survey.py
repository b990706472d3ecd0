"""``survey``: what a search would be, with a database and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from archsearch.errors import SpecError

Run = Callable[..., Result]
SPEC = """name = "{name}"
[model]
d_model = {width}
n_layers = 2
n_heads = 2
channel_mixer = "none"
[space]
mixers = ["full", "sliding"]
[space.full]
rope = [0.0, 1.0]
[space.sliding]
window = [8]
sinks = [0]
rope = [0.0]
[[tasks]]
name = "mqar"
setting = "compact"
[recipe]
steps = 300
batch_size = 64
learning_rates = [0.01]
seeds = 2
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[budget]
state_bytes = "{budget}"
[search]
trials = 10
concurrency = 2
"""


def spec(folder: Path, *, name: str = "next", width: int = 64, budget: str = "1 GiB") -> str:
    path = folder / "spec.toml"
    path.write_text(SPEC.format(name=name, width=width, budget=budget))
    return str(path)


def test_candidates_trainings_and_time(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    result = run("survey", spec(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["name"], data["taken"], data["space"]["candidates"]) == ("next", False, 9)
    references = 2
    assert data["time"]["trainings"] == (10 + references) * 2
    each = 300 * 64 * 48 / 9000.0
    assert data["time"]["training_seconds"] == pytest.approx(each)
    assert data["time"]["seconds"] == pytest.approx(each * (10 + references) * 2 / 2)
    said = run("survey", spec(tmp_path)).stdout.splitlines()
    assert said == data["said"]
    assert said[:2] == ["9 candidates", "100% can be trained within the budget"]
    assert said[3].startswith("about 20 min 29 s at most, 1 min 42 s a training, as fast as ")


def test_another_backbone_tells_nothing(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    said = run("survey", spec(tmp_path, width=32)).stdout
    assert "nothing is known of their time: no training of mqar on this backbone is stored" in said


def test_without_a_database_none_is_made(run: Run, tmp_path: Path) -> None:
    said = run("survey", spec(tmp_path)).stdout
    assert "nothing is known of their time" in said
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


def test_what_would_end_badly_is_said(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    assert 'has a search "quick" already' in run("survey", spec(tmp_path, name="quick")).stdout
    assert "none meets the budget: the tightest" in run("survey", spec(tmp_path, budget="1 KiB")).stdout
    assert isinstance(run("survey", spec(tmp_path, name="no/name")).exception, SpecError)
