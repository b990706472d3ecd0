"""Streams: stdout belongs to the answer, so that what foreign code prints on the way goes to stderr; and Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """While the block runs, whatever is written to stdout goes to stderr: by `print`, to descriptor 1, and by C.

    The stream and the descriptor are the process's, so that one thread at a time is in such a block.
    """
    with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr or io.StringIO()), _descriptor_to_stderr():
        yield


@contextlib.contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    try:
        kept = os.dup(1)
    except OSError:  # closed, so that nothing can be written to it
        yield
        return
    try:
        _flush()
        with contextlib.suppress(OSError):  # stderr is closed: what is printed stays where it was meant to go
            os.dup2(2, 1)
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """What Python and C hold back goes to where it was written to."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


class Interrupts:
    """Tells a Ctrl-C of the user from a `KeyboardInterrupt` that foreign code raised by itself.

    ``came`` is whether SIGINT arrived while the block ran; the handler that was there still gets it.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: signal.Handlers | object = None

    def __enter__(self) -> Interrupts:
        self._before = signal.getsignal(signal.SIGINT)
        if callable(self._before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *raised: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        self._before(number, frame)  # type: ignore[operator]
