"""The mixers of the field: packages of authors outside of the house, importable, and installed as pip would."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/pyproject.toml"))
sys.path.extend(str(folder) for folder in FOLDERS)  # their suites import the classes, as an author's own tests do


def projects() -> dict[str, Path]:
    """The folders of the packages by the name of the distribution."""
    return {tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]: folder for folder in FOLDERS}


@pytest.fixture(scope="session")
def field_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every package of the field and its metadata, to be put on the path of a process.

    Laid out by hand, as pip needs seconds for each; `test_pip_installs_the_same` holds it to what pip makes.
    """
    site = tmp_path_factory.mktemp("site")
    for name, folder in projects().items():
        _lay_out(site, name, folder)
    return site


def _lay_out(site: Path, name: str, folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    module = name.replace("-", "_")
    (site / module).symlink_to(folder / module)
    info = site / f"{module}-{project['project']['version']}.dist-info"
    info.mkdir()
    version = project["project"]["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = project["project"]["entry-points"]["archsearch"]
    lines = [f"{entry} = {target}" for entry, target in sorted(entries.items())]
    (info / "entry_points.txt").write_text("\n".join(["[archsearch]", *lines, ""]))
