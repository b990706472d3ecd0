"""Scraps: temporary folders that say whose they are, so that those of processes that were killed can be removed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archsearch.errors import ClusterError
from archsearch.storage.driver import Driver

PREFIX = "archsearch-"
_OWNER = "owner.json"


def passing_folder(what: str = "", parent: str | None = None) -> str:
    """A new folder for files that are removed in the end, which names this process; raises `ClusterError` where none
    can be made."""
    try:
        folder = tempfile.mkdtemp(prefix=f"{PREFIX}{what}{'-' if what else ''}", dir=parent)
        (Path(folder) / _OWNER).write_text(json.dumps(Driver.here().to_json()))
    except OSError as error:
        raise ClusterError(
            f"no folder for temporary files can be made ({error.strerror or error}): "
            "set TMPDIR to one that can be written to"
        ) from None
    return folder


@contextmanager
def scratch(what: str) -> Iterator[Path]:
    """An empty folder while inside; it lies in a `passing_folder`, so that nothing but what is put there is in it.

    What processes that were killed have left is removed before.
    """
    sweep()
    folder = Path(passing_folder(what))
    try:
        inside = folder / "files"
        inside.mkdir()
        yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(*parents: str | None) -> list[str]:
    """Removes the folders in `parents` (by default the one for temporary files) whose process is known to be dead, and
    returns them."""
    swept = []
    for parent in dict.fromkeys(parent or tempfile.gettempdir() for parent in parents or (None,)):
        for owner in sorted(Path(parent).glob(f"{PREFIX}*/{_OWNER}")):
            if _dead(owner):
                shutil.rmtree(owner.parent, ignore_errors=True)
                swept.append(str(owner.parent))
    return swept


def _dead(owner: Path) -> bool:
    try:
        if owner.is_symlink() or owner.parent.is_symlink():
            return False
        return Driver.from_json(json.loads(owner.read_text())).alive() is False
    except (OSError, ValueError, TypeError, AttributeError):
        return False
