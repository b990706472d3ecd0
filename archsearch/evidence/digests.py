"""Digests of files that decide what something computes, so that a record of it can be told from a stale one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable


@cache
def source_digest(*packages: str) -> str:
    """16 hexadecimal digits of the Python files of some packages and of those below them, by path and content."""
    digest = hashlib.sha256()
    for package in packages:
        for name, source in _modules(files(package)):
            digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _modules(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """The Python files of a folder and of those below it, each with its path from there."""
    inside = sorted(folder.iterdir(), key=lambda path: path.name)
    yield from ((prefix + path.name, path) for path in inside if path.name.endswith(".py"))
    for below in inside:
        if below.is_dir():
            yield from _modules(below, f"{prefix}{below.name}/")
