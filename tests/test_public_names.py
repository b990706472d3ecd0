"""The public names are locked: a change here is a change of the interface, and belongs into the changelog."""

from __future__ import annotations

import tomllib
from pathlib import Path

import archsearch
from archsearch import hookspecs

ROOT = Path(__file__).parents[1]


def test_public_names() -> None:
    assert sorted(archsearch.__all__) == [
        "ArchSpec",
        "ArchsearchError",
        "Flops",
        "LayerInfo",
        "LayerSpec",
        "MixerOptions",
        "MixerPlugin",
        "ModelShape",
        "ModelSpec",
        "StateTensor",
        "Traffic",
        "Tunable",
        "cost",
        "evaluate",
        "hookimpl",
        "load_registry",
        "open_store",
        "run",
    ]
    assert all(hasattr(archsearch, name) for name in archsearch.__all__)


def test_hooks() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "archsearch_spec")]
    assert sorted(hooks) == [
        "register_kernels",
        "register_metrics",
        "register_mixers",
        "register_ops",
        "register_tasks",
    ]


def test_every_folder_with_code_is_a_package_that_is_shipped() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts)): path.parent
        for package, folder in setuptools["package-dir"].items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(found) == setuptools["packages"]
    assert [folder for folder in found.values() if not (folder / "__init__.py").is_file()] == []


def test_version_is_told_once() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == archsearch.__version__
