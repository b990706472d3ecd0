"""Checkpoint: the file of an evaluation that goes on; a file that cannot be read or written never ends a training."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger("archsearch.training")


class Checkpoint:
    """One file, written whole or not at all. What is wrong with it is logged; a failure to write only once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = False

    def read(self, key: str, device: torch.device) -> dict[str, Any] | None:
        """The content that was written for `key`; None where there is no such file, or none that can be read."""
        try:
            if not self.path.exists():
                return None
            content = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # foreign data: a file of any content, and torch tells each in its own way
            self.ignore(told(error))
            return None
        if isinstance(content, dict) and content.get("key") == key:
            return content
        self.ignore("it is another evaluation's" if isinstance(content, dict) else "it holds no evaluation")
        return None

    def ignore(self, reason: str) -> None:
        """Says that the file is left alone, and why."""
        _LOG.warning("checkpoint %s is left alone, and training begins anew: %s", self.path, reason)

    def write(self, content: dict[str, Any]) -> None:
        """Replaces the file."""
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, partial)
            partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch says a full disk in a RuntimeError
            self._tell_once("cannot be written, so an interrupted training begins anew", error)
            _remove(partial)

    def remove(self) -> None:
        """Removes the file."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._tell_once("cannot be removed", error)

    def _tell_once(self, what: str, error: Exception) -> None:
        if not self._told:
            _LOG.warning("checkpoint %s %s: %s", self.path, what, error)
        self._told = True


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.debug("%s is left over: %s", path, error)
