"""`make gpu`: which tests it runs, and that its commands exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from archsearch.bench.builds import all_builds
from archsearch.cli import app
from archsearch.kernels.config import tables
from archsearch.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_driver", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_driver", module)
    spec.loader.exec_module(module)
    return module


def test_every_test_file_and_every_head_dim_of_a_plugins_table_is_run(driver: ModuleType, registry: Registry) -> None:
    list(all_builds(registry, "sm_90"))  # imports the tables
    shards = driver.shards()
    assert {shard.file for shard in shards} == set((ROOT / "tests" / "gpu").glob("test_gpu_*.py"))
    dims = {key[1] for table in tables.values() if table.package.startswith("archsearch_plugins") for key in table.rows}
    assert dims <= set(driver.DIMS)
    assert all("--write-proofs" in shard.command for shard in shards)
    assert all(not shard.dim for shard in shards if shard.file.name in driver.WHOLE)


def test_the_laws_are_tried_on_every_built_in_mixer(driver: ModuleType) -> None:
    assert set(driver.MIXERS) == set(
        re.findall(r"^class (\w+)\(MixerConformance", driver.LAWS.read_text(), re.MULTILINE)
    )
    command = driver.Laws("TestFull").command
    assert command[-3:] == ["--conformance-device", "cuda", "--write-conformance"]
    listed = subprocess.run(
        [*command[:-2], "cpu", "--collect-only", *driver.Laws("TestFull").into("elsewhere")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    laws = [line for line in listed.stdout.splitlines() if "::" in line]
    assert laws
    assert all("triton" in law for law in laws)


def test_its_commands_exist(driver: ModuleType) -> None:
    for command in driver.commands("h200", Path("out"), minutes=9.0, quick=True):
        arguments = command[len(driver.CLI) :]
        told = CliRunner().invoke(app, [*arguments[:2], "--help"], env={"COLUMNS": "200"}).output
        assert all(argument in told for argument in arguments if argument.startswith("--"))


def test_without_a_card_it_says_so(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "card_slug", lambda: None)
    assert driver.main([]) == 1
    assert "no CUDA device here" in capsys.readouterr().err
