"""The tutorial is one whole file, shown in pieces; its mixers keep the laws, and it runs."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archsearch.registry import load_registry
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, tried

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "tutorial_plugin.py"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the file defines, without its search."""
    return runpy.run_path(str(FILE), run_name="tutorial")


def test_the_page_shows_the_whole_file_in_order() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    pieces = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    joined = [line for piece in pieces for line in piece.splitlines() if line.strip()]
    assert joined == [line for line in FILE.read_text().splitlines() if line.strip()]


@pytest.mark.parametrize("plugin", ["AttentionPlugin", "MeanPlugin", "BothPlugin"])
def test_its_mixers_keep_every_law(plugin: str, names: dict[str, Any]) -> None:
    registry = load_registry([names[one]() for one in ("AttentionPlugin", "MeanPlugin", "BothPlugin")])
    mixer = registry.mixer(names[plugin].name)
    outcomes = [tried(law, Case.of(mixer, {}, registry=registry)) for law in LAWS]
    assert [outcome.text for outcome in outcomes if outcome.status == "failed"] == []
    assert sum(outcome.status == "passed" for outcome in outcomes) > 25


@pytest.mark.door
@pytest.mark.timeout(900)
def test_it_runs_as_it_stands(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(FILE)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("complete")
