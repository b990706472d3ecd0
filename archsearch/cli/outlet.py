"""Outlet: a standard stream by which text leaves, whatever terminal, pipe or full disk stands at its end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TextIO

from archsearch.errors import ArchsearchError

_NAMES = {1: "standard output", 2: "standard error"}
log = logging.getLogger("archsearch.cli")


class OutputError(ArchsearchError):
    """Text that could not be written where it should go: an answer that is lost."""


class ReaderLeftError(Exception):
    """Whoever read the other end of a pipe has left, as ``head`` does: nobody is left to tell, and nothing is wrong."""


class Outlet:
    """Standard output or, with `stderr`, standard error, as rich and others write to it.

    What its end does not take raises `OutputError`, and `ReaderLeftError` when a reader left. A stream that was closed
    when the process began takes everything: nobody wanted to read it.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._name = _NAMES[2 if stderr else 1]
        self._stream: TextIO | None = sys.stderr if stderr else sys.stdout

    @property
    def encoding(self) -> str:
        """The stream's encoding, by which rich chooses its characters."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a terminal stands at its end."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor; `OSError` where there is none."""
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Writes `text` and waits until it has left."""
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError) as error:  # a closed stream raises ValueError
                _discard(self._stream)
                self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Nothing is ever held back."""

    def _lost(self, error: OSError | ValueError) -> None:
        if isinstance(error, BrokenPipeError):
            raise ReaderLeftError from None
        raise OutputError(f"cannot write to {self._name} ({_cause(error)}): the output is lost, send it elsewhere")


class QuietOutlet(Outlet):
    """An outlet that never raises: once its end takes no more, it says so in the log and is silent."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        self._told = False

    def _lost(self, error: OSError | ValueError) -> None:
        if not self._told:
            self._told = True
            why = "its reader has left" if isinstance(error, BrokenPipeError) else _cause(error)
            log.warning("nothing more is written to %s (%s); the work goes on", self._name, why)


def _cause(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _discard(stream: TextIO) -> None:
    """Points the stream's descriptor at nothing, so that what it still holds does not fail again at the exit."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def prepare_streams() -> None:
    """Makes the standard streams of this process fit for any text, and closed ones harmless.

    Characters that an encoding lacks are escaped. A closed descriptor is opened on nothing: the next file that is
    opened, a database perhaps, would get its number and whatever is printed there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
