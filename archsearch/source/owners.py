"""Owners: which distributions install a top-level package, looked up again only where something was installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import Distribution, distributions


def owners_of(top: str) -> frozenset[str]:
    """The distributions that install the top-level package or module `top`, by every folder of `sys.path`."""
    return frozenset(name for folder, changed in _places() for name in _listed(folder, changed).get(top, ()))


def _places() -> Iterator[tuple[str, int]]:
    """The folders of `sys.path`, and when a distribution was last put into each or taken from it."""
    for entry in sys.path:
        folder = os.path.abspath(entry)
        try:
            yield folder, os.stat(folder).st_mtime_ns
        except OSError:
            continue


@lru_cache(maxsize=64)
def _listed(folder: str, _changed: int) -> Mapping[str, tuple[str, ...]]:
    """By top-level name the distributions that lie in a folder."""
    found: dict[str, list[str]] = {}
    for installed in distributions(path=[folder]):
        for top in _tops(installed):
            found.setdefault(top, []).append(installed.name)
    return {top: tuple(names) for top, names in found.items()}


def _tops(installed: Distribution) -> set[str]:
    """What a distribution says that it installs, or the Python files that it lists tell."""
    declared = (installed.read_text("top_level.txt") or "").split()
    files = () if declared else installed.files or ()
    return {*declared, *(file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py")}
