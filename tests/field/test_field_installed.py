"""The packages of the field come by their entry points, as any author's do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from field_packages import packages


def archsearch(site: Path, *arguments: str) -> str:
    """The answer of the command line, which sees the folder `site`."""
    command = [sys.executable, "-c", "from archsearch.cli import main; main()", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_is_found_and_sound(field_site: Path) -> None:
    found = json.loads(archsearch(field_site, "plugins", "--json"))["plugins"]
    ours = {report["distribution"]: report for report in found if report["distribution"] in packages()}
    assert set(ours) == set(packages())
    assert {report["status"] for report in ours.values()} == {"ok"}
    assert all(name in report["mixers"] for name, report in ours.items())
    assert not any(digest.startswith("unknown") for report in ours.values() for digest in report["digests"].values())


@pytest.mark.field
def test_pip_installs_the_same(field_site: Path, tmp_path: Path) -> None:
    copies = [shutil.copytree(folder, tmp_path / "source" / name) for name, folder in packages().items()]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, copies)], check=True)
    assert described(tmp_path / "site") == described(field_site)
    for name in packages():
        module = name.replace("-", "_")
        assert {path.name for path in (field_site / module).glob("*.py")} == {
            path.name for path in (tmp_path / "site" / module).glob("*.py")
        }


def described(site: Path) -> dict[str, tuple[str, list[tuple[str, str, str]]]]:
    """By distribution, its version and entry points."""
    return {
        found.name: (found.version, [(entry.group, entry.name, entry.value) for entry in found.entry_points])
        for found in distributions(path=[str(site)])
    }


@pytest.mark.field
@pytest.mark.parametrize("name", packages())
def test_a_package_can_be_trained_by_the_command_line(field_site: Path, name: str) -> None:
    sizes = ("--steps", "3", "--batch-size", "4", "--d-model", "16", "--learning-rate", "0.01")
    pattern = f"{'field-yoco-kv' if name == 'field-yoco' else 'full'} {name}"  # a reader needs what it reads
    answer = json.loads(archsearch(field_site, "evaluate", pattern, "--task", "copying", *sizes, "--json"))
    (summary,) = answer["summary"]
    assert summary["diverged"] == []


NO_TWIN = ("field-pad4", "field-prefix", "field-shift")
"""Packages whose like is not built in."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.field if name in NO_TWIN else pytest.mark.slow)
        for name in (*packages(), "field-yoco-kv")
    ],
)
def test_a_package_passes_every_check(field_site: Path, name: str) -> None:
    answer = json.loads(archsearch(field_site, "check", name, "--json"))
    assert answer["holds"]
    tried = [finding for finding in answer["findings"] if finding["group"] == "laws" and finding["status"] == "ok"]
    assert len(tried) > 25
