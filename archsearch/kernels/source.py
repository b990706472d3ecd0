"""Source: the digest of files that decide what something computes, so that a record of it can be told from stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable


def modules(folder: Traversable) -> list[Traversable]:
    """The Python files of a folder, by name; none where there is no folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.name.endswith(".py")), key=lambda path: path.name)


def tree(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """The Python files of a folder and of those below it, each with its path from there."""
    yield from ((prefix + path.name, path) for path in modules(folder))
    for below in sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name):
        yield from tree(below, f"{prefix}{below.name}/")


def digest_of(sources: Iterable[tuple[str, Traversable]]) -> str:
    """16 hexadecimal digits of the files' names and contents, in the order given."""
    digest = hashlib.sha256()
    for name, source in sources:
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
