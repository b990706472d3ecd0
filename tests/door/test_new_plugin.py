"""``archsearch new-plugin``: what it writes passes at once, and nothing is written for a name that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archsearch.cli import app
from archsearch.cli.new_plugin import KINDS
from archsearch.errors import ArchsearchError

ROOT = Path(__file__).parents[2]
MIXERS = [kind for kind in KINDS if kind not in ("task", "evaluator")]


def made(into: Path, kind: str, name: str | None = None) -> Path:
    """The folder of a new plugin, ``my-KIND`` unless it has a name."""
    name = name or f"my-{kind}"
    done = CliRunner().invoke(app, ["new-plugin", name, "--kind", kind, "--into", str(into)])
    assert done.exit_code == 0, done.output
    assert f"archsearch check {name}" in done.stdout
    return into / name


def run(*command: str, cwd: Path, site: Path | None = None) -> str:
    """What a command printed; it must succeed."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **({} if site is None else {"PYTHONPATH": str(site)})}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_whole_and_clean(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path, kind)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    module = f"my_{kind}"
    layer = {f"{module}/layer.py"} if kind in MIXERS else set()
    assert found == layer | {
        "README.md",
        "pyproject.toml",
        f"{module}/__init__.py",
        f"{module}/py.typed",
        f"tests/test_{module}.py",
    }
    assert not any("$" in path.read_text() for path in folder.rglob("*") if path.is_file())
    run("-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(folder), cwd=ROOT)
    run("-m", "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), str(folder), cwd=ROOT)


@pytest.mark.door
@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass_at_once(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path, kind)
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, site=folder)
    assert " passed" in printed
    assert "failed" not in printed


def test_importing_it_needs_no_torch(tmp_path: Path) -> None:
    for kind in MIXERS:
        folder = made(tmp_path, kind)
        code = f"import sys, my_{kind}\nassert 'torch' not in sys.modules"
        run("-c", code, cwd=tmp_path, site=folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("full", 'a mixer is called "full" already'),
        ("kda", 'a mixer is called "kda" already'),
        ("mqar", 'a task is called "mqar" already'),
        ("1st", "cannot be the name of a plugin"),
        ("a b", "cannot be the name of a plugin"),
        ("../up", "cannot be the name of a plugin"),
        ("", "cannot be the name of a plugin"),
        ("torch", "would be the module torch, which Python has already"),
        ("Class", "would be the module class, which Python has already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["new-plugin", "--into", str(tmp_path), "--", name])
    assert isinstance(done.exception, ArchsearchError)
    assert said in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    done = CliRunner().invoke(app, ["new-plugin", "mine", "--into", str(tmp_path)])
    assert "is there already: choose another name" in str(done.exception)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "note.txt"]
    done = CliRunner().invoke(app, ["new-plugin", "mine", "--into", str(tmp_path / "nowhere")])
    assert "there is no such folder: make it" in str(done.exception)
    done = CliRunner().invoke(app, ["new-plugin", "mine", "--kind", "recurent", "--into", str(tmp_path)])
    assert 'did you mean "recurrent"' in str(done.exception)


SPEC = """
name = "door"
[model]
d_model = 32
n_heads = 4
n_layers = 2
channel_mixer = "none"
[space]
mixers = [{mixers}]
[[tasks]]
name = "my-task"
[objectives]
maximize = ["my-task.accuracy"]
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


@pytest.mark.door
@pytest.mark.timeout(600)
def test_all_kinds_are_installed_checked_and_searched_over(tmp_path: Path) -> None:
    folders = [made(tmp_path, kind) for kind in KINDS]
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    run(*pip, *map(str, folders), cwd=tmp_path)
    archsearch = ("-P", "-c", "from archsearch.cli import main; main()")
    shown = json.loads(run(*archsearch, "plugins", "--json", cwd=tmp_path, site=site))
    ours = {plugin["name"]: plugin["status"] for plugin in shown["plugins"] if plugin["name"].startswith("my-")}
    assert ours == {f"my-{kind}": "ok" for kind in KINDS}
    for kind in KINDS:
        found = json.loads(run(*archsearch, "check", f"my-{kind}", "--json", cwd=tmp_path, site=site))
        assert found["holds"], [finding for finding in found["findings"] if finding["status"] == "failed"]
    names = [f"my-{kind}" for kind in MIXERS]
    mixers = ", ".join(f'"{name}"' for name in [*names, "full", "kda"])
    (tmp_path / "door.toml").write_text(SPEC.format(mixers=mixers))
    stored = ("--storage", f"sqlite:///{tmp_path}/door.db")
    printed = run(*archsearch, "run", "door.toml", *stored, cwd=tmp_path, site=site)
    assert "search complete" in printed
    run(*archsearch, "show", "door/0", *stored, "--json", cwd=tmp_path, site=site)


@pytest.mark.door
def test_what_is_written_passes_strict_types(tmp_path: Path) -> None:
    environ = {**os.environ, "MYPYPATH": os.pathsep.join(str(made(tmp_path, kind)) for kind in KINDS)}
    packages = [word for kind in KINDS for word in ("-p", f"my_{kind}")]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", *packages]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
