"""Kept proofs: what rows of kernels came to on this user's machines, the failures too, in one file of the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from archsearch.errors import SpecError
from archsearch.evidence.folder import cache_folder
from archsearch.evidence.proofs import Machine, Proof, Proofs, proven_source
from archsearch.evidence.records import R, Records

FILE = "proofs.json"
WRITING_SECONDS = 30.0
"""How long another process may take to add a line."""

_log = logging.getLogger("archsearch.impl")
_read: dict[Path, tuple[tuple[int, int, int], tuple[Proof, ...]]] = {}
"""By path what was read of it, and the inode, time and size that the file then had."""


def kept_path() -> Path:
    """Where they lie."""
    return cache_folder() / FILE


def kept() -> Sequence[Proof]:
    """All of them, of other sources and machines too; none where there is no file, or one that holds something else,
    which is said."""
    path = kept_path()
    try:
        found = path.stat()
    except OSError:
        return ()
    seen = found.st_ino, found.st_mtime_ns, found.st_size
    if path not in _read or _read[path][0] != seen:
        try:
            records = Proofs.read(path).records
        except SpecError as error:
            _log.warning("%s", error)
            records = ()
        _read[path] = seen, records
    return _read[path][1]


def unreadable() -> str:
    """Why the file that is there cannot be read, with the remedy; empty where it can be, or none is there."""
    try:
        if kept_path().is_file():
            Proofs.read(kept_path())
    except SpecError as error:
        return str(error)
    return ""


def kept_here(package: str, machine: Machine) -> Sequence[Proof]:
    """Those of a package's rows that hold for today's source on a machine."""
    source = proven_source(package)
    return [found for found in kept() if (found.package, found.source, found.machine) == (package, source, machine)]


def keep(new: Iterable[Proof]) -> None:
    """Adds proofs, as `add_kept`."""
    add_kept(Proofs, kept_path(), new)


def add_kept(kind: type[Records[R]], path: Path, new: Iterable[R]) -> None:
    """Adds records to a file of the cache; others than they replace stay. A file that holds something else is put aside
    first. Raises `SpecError` where nothing can be written, also for no records."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=WRITING_SECONDS):
            _put_aside(kind, path)
            kind.add(path, new)
    except (OSError, Timeout) as error:
        raise SpecError(
            f"cannot write {path}: {error}: let ARCHSEARCH_CACHE name a folder that can be written"
        ) from None


def _put_aside(kind: type[Records[R]], path: Path) -> None:
    if not path.is_file():
        return
    try:
        kind.read(path)
    except SpecError:
        aside = path.with_suffix(".unreadable")
        path.replace(aside)
        _log.warning("%s holds no %s: it is put aside as %s", path, kind.HOLDS, aside)
