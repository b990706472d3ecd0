"""``archsearch check``: one report on a mixer or a task, a sentence for what does not hold, an exit status for CI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archsearch.cli import app
from archsearch.errors import UnknownNameError

HEAD = """
from archsearch import hookimpl
from archsearch.testing.toy import ToyPlugin
"""
LAYER = """
import torch
from archsearch.testing.toy_layer import RunningMean

class Layer(RunningMean):
    def forward(self, x, *, state=None, ctx):
        y, state = super().forward(x, state=state, ctx=ctx)
        return {y}, state
"""
PLUGIN = """
class Plugin(ToyPlugin):
    name, presets = "mine", {{}}
    {more}
    def build(self, options, shape, layer):
        from mine_layer import Layer
        return Layer(self, options, shape, layer)

@hookimpl
def register_mixers(register):
    register(Plugin())
"""


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """A folder with a distribution "mine" of a plugin module and its layer, for the path of another process."""

    def installed(plugin: str, layer: str = LAYER.format(y="y")) -> Path:
        site = tmp_path / "site"
        info = site / "mine-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "mine.py").write_text(plugin)
        (site / "mine_layer.py").write_text(layer)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[archsearch]\nmine = mine\n")
        return site

    return installed


def check(name: str, site: Path | str, cwd: Path | None = None) -> tuple[int, dict[str, Any], str]:
    """The exit status, the report of ``--json`` and what was said on stderr, in a process that sees `site`."""
    command = [sys.executable, "-P", "-c", "from archsearch.cli import main; main()", "check", name, "--json"]
    environ = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def failed(report: dict[str, Any]) -> dict[str, str]:
    """What does not hold, by name."""
    return {one["name"]: one["text"] for one in report["findings"] if one["status"] == "failed"}


@pytest.mark.door
def test_a_sound_mixer_holds(install: Callable[..., Path]) -> None:
    status, report, _ = check("mine", install(HEAD + PLUGIN.format(more="")))
    assert (status, report["holds"], failed(report)) == (0, True, {})
    groups = {finding["group"] for finding in report["findings"]}
    assert groups == {"registration", "costs", "laws", "training", "worker"}


def test_a_law_that_does_not_hold_is_told_in_a_line(install: Callable[..., Path]) -> None:
    leaks = LAYER.format(y="y + 1e-3 * x.roll(-1, 1)")
    status, report, _ = check("mine", install(HEAD + PLUGIN.format(more=""), leaks))
    assert (status, report["holds"]) == (1, False)
    told = failed(report)["no_token_sees_the_future"]
    assert told.startswith('law "causal": ')
    assert "\n" not in told


@pytest.mark.door
def test_a_law_that_is_declared_broken_is_told_with_its_reason(install: Callable[..., Path]) -> None:
    mixes = LAYER.replace("ctx=ctx)", "ctx=__import__('dataclasses').replace(ctx, cu_seqlens=None))").format(y="y")
    more = 'broken_laws = {"packed": "it averages over the whole row"}'
    status, report, _ = check("mine", install(HEAD + PLUGIN.format(more=more), mixes))
    assert (status, failed(report)) == (0, {})
    declared = [one["text"] for one in report["findings"] if one["status"] == "declared broken"]
    assert any("it averages over the whole row" in text for text in declared)


@pytest.mark.door
def test_what_is_declared_broken_and_holds_is_told(install: Callable[..., Path]) -> None:
    more = 'broken_laws = {"packed": "nothing is"}'
    status, report, _ = check("mine", install(HEAD + PLUGIN.format(more=more)))
    assert status == 1
    assert '"packed" is declared broken, but holds' in failed(report)["declared_laws_are_broken"]


def test_a_plugin_that_failed_to_load_is_told_why(install: Callable[..., Path]) -> None:
    status, report, _ = check("mine", install("import no_such_module"))
    assert status == 1
    assert "No module named 'no_such_module'" in failed(report)["mine"]


def test_a_name_that_two_plugins_claim_is_told(install: Callable[..., Path]) -> None:
    status, report, _ = check("full", install(HEAD + PLUGIN.format(more="").replace('"mine"', '"full"')))
    assert status == 1
    assert '"full" is claimed by' in failed(report)["full"]


@pytest.mark.door
def test_a_layer_that_raises_is_told_by_every_part_that_runs_it(install: Callable[..., Path]) -> None:
    status, report, _ = check("mine", install(HEAD + PLUGIN.format(more=""), LAYER.format(y="1 / 0")))
    assert status == 1
    assert "raised ZeroDivisionError" in failed(report)["forward_equals_repeated_step"]
    assert "raised ZeroDivisionError" in failed(report)["training"]


@pytest.mark.door
def test_a_plugin_of_the_current_folder_alone_is_told_apart(install: Callable[..., Path]) -> None:
    site = install(HEAD + PLUGIN.format(more=""))
    status, report, _ = check("mine", ".", cwd=site)
    assert status == 1
    assert set(failed(report)) == {"worker"}
    assert "put the absolute path of its folder into PYTHONPATH" in failed(report)["worker"]


def test_an_unknown_name_is_refused_with_the_nearest_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    status, report, said = check("slidng", tmp_path)
    assert (status, report) == (2, {})
    assert 'unknown mixer "slidng" (did you mean "sliding"?)' in said
    assert isinstance(CliRunner().invoke(app, ["check", "nobody"]).exception, UnknownNameError)


@pytest.mark.door
def test_a_layer_in_notation_and_an_implementation_are_tried() -> None:
    done = CliRunner().invoke(app, ["check", "sliding(window=6)", "--impl", "reference", "--impl", "chunkwise"])
    assert done.exit_code == 0, done.output
    assert "sliding(window=6), reference" in done.stdout
    assert "sliding(window=6): all holds" in done.stdout
    refused = CliRunner().invoke(app, ["check", "full", "--impl", "chunkwide"])
    assert 'did you mean "chunkwise"' in str(refused.exception)


def test_a_task_is_tried_by_its_own_laws() -> None:
    done = CliRunner().invoke(app, ["check", "copying", "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["holds"]) == (0, True)
    assert {one["case"] for one in report["findings"] if one["group"] == "laws"} >= {"easy", "standard", "blind"}
