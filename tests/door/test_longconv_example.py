"""The package in examples/plugin-longconv passes its tests, is installed as a foreign author's, and searched over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "plugin-longconv"
SPEC = """
name = "longconv"
[model]
d_model = 32
n_heads = 4
n_layers = 2
channel_mixer = "none"
[space]
mixers = ["longconv"]
[[tasks]]
name = "mqar"
setting = "compact"
[objectives]
maximize = ["mqar.accuracy"]
minimize = ["state_bytes"]
[recipe]
steps = 4
batch_size = 8
learning_rates = [1e-3]
[search]
trials = 3
concurrency = 2
references = false
confirm_seeds = 0
"""


def run(*command: str, cwd: Path, **variables: str) -> str:
    """What a command of Python printed; it must succeed."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has installed it, from a copy, beside which it builds."""
    folder = tmp_path_factory.mktemp("longconv")
    source, site = shutil.copytree(FOLDER, folder / "source"), folder / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site))
    run(*pip, str(source), cwd=folder)
    return site


@pytest.mark.door
@pytest.mark.timeout(600)
def test_its_own_tests_pass(site: Path) -> None:
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=FOLDER, PYTHONPATH=str(site))
    assert " passed" in printed
    assert "failed" not in printed


@pytest.mark.door
@pytest.mark.timeout(600)
def test_it_is_found_checked_and_searched_over(site: Path, tmp_path: Path) -> None:
    archsearch, at = ("-P", "-c", "from archsearch.cli import main; main()"), {"PYTHONPATH": str(site)}
    shown = json.loads(run(*archsearch, "plugins", "--json", cwd=tmp_path, **at))
    (ours,) = (plugin for plugin in shown["plugins"] if plugin["name"] == "longconv")
    assert (ours["status"], ours["mixers"]) == ("ok", ["longconv"])
    found = json.loads(run(*archsearch, "check", "longconv", "--json", cwd=tmp_path, **at))
    assert found["holds"], [finding for finding in found["findings"] if finding["status"] == "failed"]
    (tmp_path / "longconv.toml").write_text(SPEC)
    stored = ("--storage", f"sqlite:///{tmp_path}/longconv.db")
    printed = run(*archsearch, "run", "longconv.toml", *stored, cwd=tmp_path, **at)
    assert "search complete" in printed
    shown = json.loads(run(*archsearch, "show", "longconv/0", *stored, "--json", cwd=tmp_path, **at))
    assert "longconv" in shown["pattern"]


@pytest.mark.door
def test_it_passes_strict_types() -> None:
    run("-m", "mypy", "--strict", "--config-file", "pyproject.toml", "-p", "longconv", cwd=ROOT, MYPYPATH=str(FOLDER))
