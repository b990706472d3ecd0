"""Checkpoint place: where a search keeps the checkpoints of its trials while they run, and removing what it left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from archsearch.arch import digest_of
from archsearch.storage.scraps import passing_folder
from archsearch.storage.url import hide, read_url, sqlite_path


def checkpoint_name(database: str, search: str) -> str:
    """The name of the folder of a search, of that database alone: a SQLite file is named by its whole path, as a
    relative one is another in each folder."""
    path = sqlite_path(read_url(database))
    return digest_of([hide(database) if path is None else f"sqlite:///{path}", search])


def checkpoint_folder(database: str, search: str, *, local: bool) -> Path:
    """Where trials of a search keep their checkpoints on the host that runs them, where the spec names no place.

    Under ``XDG_CACHE_HOME`` or ``~/.cache``; by a temporary name when that cannot be written. On a cluster the
    home is that of each worker.
    """
    name = checkpoint_name(database, search)
    if not local:
        return Path("~/.cache/archsearch/checkpoints") / name
    try:
        folder = _cache() / "archsearch" / "checkpoints" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # not to be written to, or no home is known
        return Path(passing_folder("checkpoints"))
    return folder if os.access(folder, os.W_OK) else Path(passing_folder("checkpoints"))


def named_folder(place: str, database: str, search: str) -> str:
    """The folder of a search within the `place` that its spec names, a path or a URL."""
    return f"{place.rstrip('/')}/{checkpoint_name(database, search)}"


def left_checkpoints(place: str | None, database: str, search: str) -> list[str]:
    """Folders on this machine that hold checkpoints of a search, and the URL where its spec names a store, of which it
    is not known whether it holds any."""
    if place is not None and "://" in place and not place.startswith("file://"):
        return [named_folder(place, database, search)]
    try:
        if place is not None:
            found = [Path(named_folder(place.removeprefix("file://"), database, search)).expanduser()]
        else:
            roots = dict.fromkeys([_cache(), Path.home() / ".cache"])
            found = [root / "archsearch" / "checkpoints" / checkpoint_name(database, search) for root in roots]
        return [str(folder) for folder in found if folder.is_dir() and not folder.is_symlink()]
    except (OSError, RuntimeError):  # no home is known, or it may not be looked into
        return []


def remove_checkpoints(folder: str) -> bool:
    """Removes a folder of `left_checkpoints`; False for a URL, and where something of it stays."""
    if "://" in folder:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not Path(folder).exists()


def _cache() -> Path:
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path.home() / ".cache"
