"""`make gpu`: its commands exist, and it ends in time with what it has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_samples import benchmark
from typer.testing import CliRunner

from archsearch.bench.kernels import ops_of
from archsearch.bench.results import targets
from archsearch.cli import app
from archsearch.costs import parse_context
from archsearch.evidence.kept import kept_path
from archsearch.op_forms import registered_tables
from archsearch.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("gpu", monkeypatch)


def test_the_laws_are_tried_on_every_built_in_mixer(driver: ModuleType) -> None:
    assert set(driver.MIXERS) == set(
        re.findall(r"^class (\w+)\(MixerConformance", driver.LAWS.read_text(), re.MULTILINE)
    )
    command = next(step.command for step in driver.laws() if step.name == "laws TestFull")
    tried = ["cpu" if word == "cuda" else word for word in command]
    listed = subprocess.run(
        [*tried, "--collect-only", "--conformance-folder", "elsewhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    laws = [line for line in listed.stdout.splitlines() if "::" in line]
    assert laws
    assert all("triton" in law for law in laws)


def test_its_commands_exist_and_share_the_time(driver: ModuleType) -> None:
    planned = driver.steps("h200", Path("out"), minutes=8.5, jobs=14)
    assert [step.name for step in planned] == ["proofs", "ops", "models", "report"]
    again = driver.steps("h200", Path("out"), minutes=5.0, jobs=14, proofs=False)
    assert [step.name for step in again] == ["ops", "models", "report"]
    for shared in (planned, again):
        assert sum(step.share for step in shared) == pytest.approx(1.0)
    for step in planned:
        arguments = step.command[len(driver.CLI) :]
        told = CliRunner().invoke(app, [*arguments[:2], "--help"], env={"COLUMNS": "200"}).output
        assert all(argument in told for argument in arguments if argument.startswith("--"))


def test_models_are_measured_at_the_context_that_the_targets_name(driver: ModuleType) -> None:
    contexts = dict(zip(driver.CONTEXTS[::2], driver.CONTEXTS[1::2], strict=True))
    assert parse_context(contexts["--decode"].split(",")[0]) == targets._CONTEXT
    assert driver.PATTERNS == (targets._FULL, targets._HYBRID)


def test_proofs_are_copied_after_each_step(driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is lent goes back with its cache, and may do so at any time."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "card_slug", lambda: "h200")
    monkeypatch.setattr(driver, "probe", lambda environ: ("", kept_path()))
    monkeypatch.delenv("ARCHSEARCH_PROVE", raising=False)
    out, seen, policies = tmp_path / "out", list[str](), set[str]()

    def ended_well(command: list[str], seconds: float, environ: dict[str, str], keep: Callable[[], None]) -> bool:
        policies.add(environ["ARCHSEARCH_PROVE"])
        held = out / "proofs" / "h200.json"
        seen.append(held.read_text() if held.is_file() else "")
        kept_path().parent.mkdir(exist_ok=True)
        kept_path().write_text(f"{len(seen)} proofs")
        return True

    monkeypatch.setattr(driver, "ended_well", ended_well)
    assert driver.main(["--out", str(out), "--jobs", "1"]) == 0
    assert seen == ["", "1 proofs", "2 proofs", "3 proofs"]
    assert (out / "proofs" / "h200.json").read_text() == "4 proofs"
    assert driver.main(["--out", str(out), "--skip-proofs", "--minutes", "5"]) == 0
    assert len(seen) == 7
    assert policies == {"listed"}  # what the time for proofs did not suffice for takes none of the measurements'
    monkeypatch.setenv("ARCHSEARCH_PROVE", "first-use")
    assert driver.main(["--out", str(out), "--skip-proofs"]) == 0
    assert policies == {"listed", "first-use"}


def test_proofs_are_copied_while_a_step_runs_and_never_in_part(
    driver: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, held = tmp_path / "proofs.json", tmp_path / "out" / "proofs" / "h200.json"
    waits = "import pathlib, time\nwhile not pathlib.Path({!r}).is_file(): time.sleep(0.01)"
    command = [sys.executable, "-c", waits.format(str(held))]
    assert not driver.ended_well(command, 0.2, keep=lambda: driver.copy_proofs(kept, held), every=0.01)
    kept.write_text("some proofs")
    assert driver.ended_well(command, 60.0, keep=lambda: driver.copy_proofs(kept, held), every=0.01)
    assert held.read_text() == "some proofs"
    assert [path.name for path in held.parent.iterdir()] == ["h200.json"]
    held.with_suffix(".partial").mkdir()  # so that the copy cannot be written
    kept.write_text("more proofs")
    driver.copy_proofs(kept, held)
    assert held.read_text() == "some proofs"
    assert "cannot write" in capsys.readouterr().out


def test_what_an_earlier_run_measured_does_not_pass_for_this_ones(driver: ModuleType, tmp_path: Path) -> None:
    for name in ("h200-kernels.json", "h200-model.json", "h200.png", "a100-kernels.json"):
        (tmp_path / name).write_text(name)
    driver.put_aside("h200", tmp_path)
    driver.put_aside("h200", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a100-kernels.json",
        "h200-kernels.json.earlier",
        "h200-model.json.earlier",
        "h200.png.earlier",
    ]
    assert (tmp_path / "h200.png.earlier").read_text() == "h200.png"


def test_the_order_of_worth_names_ops_that_there_are(driver: ModuleType, registry: Registry) -> None:
    ops = [op.name for op in ops_of(registry, first=driver.WORTH)]
    words = driver.WORTH.split(",")
    assert ops[0] == words[0]
    assert [next((word for word in words if word in name), "") for name in ops[: len(words)]] != [""] * len(words)
    assert set(words) <= set(ops)
    assert ops.index("kda") < ops.index("nsa") < ops.index("short conv")


def test_the_interpreter_is_given_a_row_and_an_op_that_there_are(driver: ModuleType, registry: Registry) -> None:
    planned = driver.steps(driver.INTERPRETED, Path("out"), minutes=8.5, jobs=1)
    row, op = (step.command[list(step.command).index("--only") + 1] for step in planned[:2])
    (measured,) = ops_of(registry, op)
    assert measured.table == row in registered_tables(registry)


def test_a_step_that_takes_too_long_is_ended_and_the_next_one_runs(
    driver: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(name: str, code: str, share: float) -> Any:
        return driver.Step(name, [sys.executable, "-c", code], share)

    note = "import pathlib, sys; pathlib.Path({!r}).write_text('there')"
    endless = f"{note.format(str(tmp_path / 'first'))}; import time; time.sleep(1000)"
    planned = [
        stand_in("endless", endless, 0.2),
        stand_in("broken", "raise SystemExit(3)", 0.2),
        stand_in("good", note.format(str(tmp_path / "last")), 0.6),
    ]
    assert not driver.run(planned, 15.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "last"]
    assert "what it wrote so far stays" in capsys.readouterr().out
    assert driver.run(planned[2:], 60.0)


def test_without_a_card_it_says_so(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "card_slug", lambda: None)
    monkeypatch.setattr(driver, "probe", lambda environ: ("", tmp_path))
    assert driver.main([]) == 1
    assert "no CUDA device here" in capsys.readouterr().err


def would_run(*arguments: str) -> list[str]:
    """The commands of a make that is told to run none; the tests themselves may be run by another make."""
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "-n", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_make_gpu_installs_nothing_and_asks_no_network() -> None:
    assert [line.split()[1:] for line in would_run("gpu")] == [["benchmarks/gpu.py"]]
    assert would_run("gpu", "VENV=absent") == ["python3 benchmarks/gpu.py"]


def test_a_checkout_runs_as_it_lies_with_its_entry_points(driver: ModuleType, tmp_path: Path) -> None:
    """No distribution of ours is installed where this Python looks; what was carried along comes next."""
    (tmp_path / "carried.py").write_text("here = True")
    code = (
        "import carried, sys; from importlib.metadata import entry_points, version;"
        "from importlib.util import find_spec; from os.path import realpath;"
        "print(version('archsearch'), len(entry_points(group='archsearch')), sys.path[1]);"
        "named = 'archsearch', 'archsearch_plugins', 'archsearch_dashboard';"
        "print(*(realpath(find_spec(name).origin) for name in named))"
    )
    with driver.checkout(tmp_path) as environ:
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert first.split()[:2] == [known["version"], str(len(known["entry-points"]["archsearch"]))]
    assert [Path(path) for path in second.split()] == [
        ROOT / place / "__init__.py" for place in ("archsearch", "plugins", "dashboard")
    ]
    assert not Path(first.split()[2]).exists()


def test_what_a_machine_lacks_is_named_with_the_remedy(
    driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pydantic.py").write_text("import pydantic_core_of_nobody")
    monkeypatch.setattr(driver, "card_slug", lambda: pytest.fail("it was found out before"))
    with driver.checkout(tmp_path) as environ:
        lacking, _ = driver.probe(environ)
    assert "has no pydantic_core_of_nobody, and nothing is installed here" in lacking
    assert "pip install --target .gpu-packages" in lacking


@pytest.mark.slow
def test_a_dry_run_proves_measures_and_reports_without_a_card(tmp_path: Path) -> None:
    """All steps, with the interpreter for a card, of a checkout that is not installed."""
    environ = {**os.environ, "ARCHSEARCH_CACHE": str(tmp_path / "cache"), "TRITON_INTERPRET": "1"}
    command = [sys.executable, "benchmarks/gpu.py", "--interpreted", "--jobs", "1", "--minutes", "20"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "interpreter-kernels.json",
        "interpreter-model.json",
        "interpreter.png",
        "proofs",
    ]
    proofs = json.loads((tmp_path / "out" / "proofs" / "interpreter.json").read_text())["records"]
    assert {(proof["op"], proof["fault"]) for proof in proofs} == {("gates", "")}
