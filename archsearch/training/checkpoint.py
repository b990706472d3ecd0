"""Checkpoint: the file of an evaluation that goes on; a file that cannot be read or written never ends a training."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any, Protocol

import torch

from archsearch.errors import SpecError

_ABSENT = object()
_LOG = logging.getLogger("archsearch.training")


class _Files(Protocol):
    """Where checkpoints lie; every method may raise whatever its kind of store does."""

    def load(self, device: torch.device) -> Any: ...

    def save(self, content: dict[str, Any]) -> None: ...

    def remove(self) -> None: ...


class Checkpoint:
    """One file, written whole or not at all. What is wrong with it is logged; a failure to write only once."""

    def __init__(self, place: Path | str) -> None:
        """``place`` is a path, or a URL that fsspec knows ("s3://bucket/run/7.pt")."""
        self.place = place
        self._files: _Files = _files(str(place))
        self._told = False

    def read(self, key: str, device: torch.device) -> dict[str, Any] | None:
        """The content that was written for `key`; None where there is no such file, or none that can be read."""
        try:
            content = self._files.load(device)
        except Exception as error:  # foreign data: a file of any content, and torch tells each in its own way
            self.ignore(told(error))
            return None
        if content is _ABSENT:
            return None
        if isinstance(content, dict) and content.get("key") == key:
            return content
        self.ignore("it is another evaluation's" if isinstance(content, dict) else "it holds no evaluation")
        return None

    def ignore(self, reason: str) -> None:
        """Says that the file is left alone, and why."""
        _LOG.warning("checkpoint %s is left alone, and training begins anew: %s", self.place, reason)

    def write(self, content: dict[str, Any]) -> None:
        """Replaces the file."""
        try:
            self._files.save(content)
        except Exception as error:  # a full disk, a store that is away: each tells it in its own way
            self._tell_once("cannot be written, so an interrupted training begins anew", error)

    def remove(self) -> None:
        """Removes the file."""
        try:
            self._files.remove()
        except Exception as error:
            self._tell_once("cannot be removed", error)

    def _tell_once(self, what: str, error: Exception) -> None:
        if not self._told:
            _LOG.warning("checkpoint %s %s: %s", self.place, what, " ".join(str(error).split())[:200])
        self._told = True


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def check_store(place: str) -> None:
    """Raises `SpecError` where checkpoints cannot be kept at `place` from here, for want of a package."""
    if "://" not in place or place.startswith("file://"):
        return
    try:
        import fsspec

        fsspec.get_filesystem_class(place.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise SpecError(f'resources.checkpoints = "{place}" cannot be used: {error}') from None


def _load(file: Path | io.BytesIO, device: torch.device) -> Any:
    return torch.load(file, map_location=device, weights_only=True)


def _files(place: str) -> _Files:
    if place.startswith("file://"):
        return _Local(Path(place.removeprefix("file://")))
    return _Remote(place) if "://" in place else _Local(Path(place))


class _Local:
    """A file, replaced by a rename."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, device: torch.device) -> Any:
        return _load(self._path, device) if self._path.exists() else _ABSENT

    def save(self, content: dict[str, Any]) -> None:
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(content, partial)
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _Remote:
    """An object of a store that fsspec knows, which replaces it whole."""

    def __init__(self, url: str) -> None:
        self._url = url

    def load(self, device: torch.device) -> Any:
        store, path = self._open()
        return _load(io.BytesIO(store.cat_file(path)), device) if store.exists(path) else _ABSENT

    def save(self, content: dict[str, Any]) -> None:
        store, path = self._open()
        made = io.BytesIO()
        torch.save(content, made)
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
        store.pipe_file(path, made.getvalue())

    def remove(self) -> None:
        store, path = self._open()
        if store.exists(path):
            store.rm_file(path)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        store, path = fsspec.core.url_to_fs(self._url)
        return store, path
