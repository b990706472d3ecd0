"""The packages of the field: where they lie, and how they are installed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/pyproject.toml"))


def project_of(folder: Path) -> dict[str, Any]:
    """What the package says of itself."""
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def packages() -> dict[str, Path]:
    """The folders by the name of the distribution, which is the mixer's and the entry point's too."""
    return {project_of(folder)["name"]: folder for folder in FOLDERS}


def lay_out(folder: Path, site: Path) -> None:
    """Puts a package and its metadata into `site`, as pip does in seconds."""
    project = project_of(folder)
    name, version = project["name"], project["version"]
    module = name.replace("-", "_")
    (site / module).symlink_to(folder / module)
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = project["entry-points"]["archsearch"].items()
    lines = ["[archsearch]", *(f"{entry} = {target}" for entry, target in entries)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
