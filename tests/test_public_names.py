"""The public names are locked: a change here is a change of the interface, and belongs into the changelog."""

from __future__ import annotations

import re
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
    assert sorted(hooks) == ["register_kernels", "register_mixers", "register_ops", "register_tasks"]


def test_every_package_is_shipped() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    core = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "archsearch").rglob("__init__.py")}
    found = {
        re.sub(f"^{folder}", f"archsearch_{folder}", ".".join(path.parent.relative_to(ROOT).parts))
        for folder in ("plugins", "dashboard")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert core | found == listed


def test_version_is_told_once() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == archsearch.__version__
