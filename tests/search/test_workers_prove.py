"""Workers of a real local Ray prove once a node, before their first trial; a stand-in plays their cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("stand_in_card_driver.py")
SECONDS = 1500
"""Far beyond the minute that it takes where the machine does nothing else."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "arrived").mkdir()
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(DRIVER.parent), os.environ.get("PYTHONPATH")])),
        "TMPDIR": str(folder),
        "TRITON_INTERPRET": "1",
        "ARCHSEARCH_CACHE": str(folder / "cache"),
        "STAND_IN_STARTED": str(folder / "started"),
        "STAND_IN_ARRIVED": str(folder / "arrived"),
    }
    for variable in ("ARCHSEARCH_PROVE", "ARCHSEARCH_IMPL"):
        environ.pop(variable, None)
    command = [sys.executable, str(DRIVER), str(folder)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "report.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_two_workers_prove_each_row_once_before_their_first_trials(report: dict[str, Any]) -> None:
    assert report["failures"] == {}
    assert len(set(report["pids"].values())) == 2
    labels = [(one["op"], *one["key"], one["dtype"]) for one in report["proven"]]
    assert len(labels) == len(set(labels)) > 0
    assert {one["parent"] for one in report["proven"]} <= set(report["pids"].values())


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_each_trial_reports_the_rows_that_it_took(report: dict[str, Any]) -> None:
    measured = list(report["measured"].values())
    assert [one["status"] for one in measured] == ["complete"] * 2
    assert {one["versions"]["kernels"] for one in measured} == {"window_attention sm_90 D=16 float32"}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_a_worker_that_is_asked_ahead_knows_what_the_others_proved(report: dict[str, Any]) -> None:
    assert report["proven_later"] == []
    assert all(note.startswith("before the first trial a worker proves") for note in report["notes"])
    assert [use[1:4] for use in report["uses"]] == [["window_attention", ["sm_90", 16, 0], "float32"]]
