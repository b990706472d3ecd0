"""Wheels as pip builds them: of a plugin, and of a package that one asks for."""

from __future__ import annotations

import zipfile
from pathlib import Path

MODULE = """
from archsearch.hookspecs import hookimpl
from archsearch.testing.toy import ToyPlugin

class Mine(ToyPlugin):
    name = "mine"

@hookimpl
def register_mixers(register):
    register(Mine())
"""
ASKING = f"import tiny_dependency\n{MODULE}"
"""The same, of a plugin that does nothing without another package."""
ABOUT = "mine_mixer-1.2.dist-info"
METADATA = "Metadata-Version: 2.1\nName: mine-mixer\nVersion: 1.2\n"


def wheel(folder: Path, *, name: str = "mine_mixer-1.2-py3-none-any.whl", **files: str) -> Path:
    """A wheel of the plugin, or with other files."""
    held = {
        "mine_mixer/__init__.py": MODULE,
        f"{ABOUT}/METADATA": METADATA,
        f"{ABOUT}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{ABOUT}/entry_points.txt": "[archsearch]\nmine = mine_mixer\n",
        f"{ABOUT}/RECORD": "",
        **files,
    }
    return _packed(folder / name, held)


def asking_wheel(folder: Path, *asked: str) -> Path:
    """One of the plugin that asks for other packages."""
    requires = "".join(f"Requires-Dist: {text}\n" for text in asked or ("tiny-dependency>=1",))
    return wheel(folder, **{"mine_mixer/__init__.py": ASKING, f"{ABOUT}/METADATA": METADATA + requires})


def tiny_dependency(folder: Path) -> Path:
    """A package that nobody has installed."""
    about = "tiny_dependency-1.0.dist-info"
    held = {
        "tiny_dependency.py": "",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny-dependency\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": f"tiny_dependency.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n",
    }
    return _packed(folder / "tiny_dependency-1.0-py3-none-any.whl", held)


def _packed(path: Path, held: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in held.items():
            archive.writestr(inside, text)
    return path
