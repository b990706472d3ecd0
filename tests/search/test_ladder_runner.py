"""A ladder of two rungs on a real local Ray, from its spec to what is told of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_spec import tiny_spec

TASK = """setting = "easy"
[tasks.options]
seq_len = 16
pairs = 2
keys = 4
values = 4
"""
RUNG = """
[[rung]]
keep = 1
at_most = 1
d_model = 32
n_heads = 2
n_layers = 4
steps = 3
seeds = 2
"""
MAIN = [sys.executable, "-c", "from archsearch.cli import main; main()"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # real searches, on a machine that may be busy


def command(folder: Path, *words: str) -> str:
    environ = {
        **os.environ,
        "ARCHSEARCH_STORAGE": f"sqlite:///{folder}/ladder.db",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([*MAIN, *words], env=environ, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_survivors_of_a_search_are_trained_one_size_up(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.toml"
    text = tiny_spec(2, recipe="batch_size = 8", search="references = false\nconfirm_seeds = 0")
    spec.write_text(text.replace('setting = "easy"\n', TASK).replace("window = [8]", "window = [4]") + RUNG)
    run = json.loads(command(tmp_path, "run", str(spec), "--json"))
    assert (run["name"], run["state"]) == ("tiny.rung2", "complete")
    found = json.loads(command(tmp_path, "ladder", "tiny", "--json"))
    below, above = found["rungs"]
    assert (below["sizes"]["d_model"], above["sizes"]["d_model"], above["sizes"]["n_layers"]) == (16, 32, 4)
    (carried,) = above["architectures"]
    assert (carried["state"], carried["why"]) == ("complete", "front")
    assert len(carried["scores"]["recall"]) == 2
    assert carried["flops"]["mqar"] > below["architectures"][0]["flops"]["mqar"]
    again = json.loads(command(tmp_path, "resume", "tiny", "--json"))
    assert (again["name"], again["state"], again["seconds"]) == ("tiny.rung2", "complete", 0.0)
