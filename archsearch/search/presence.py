"""Presence: a driver says that it is alive, and hears that it is to stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from archsearch.errors import StorageError, TakenOverError
from archsearch.storage import Store

HEARTBEAT_SECONDS = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LeaveAtOnce(KeyboardInterrupt):
    """A second signal: leave at once."""


@contextmanager
def heartbeat(store: Store, search_id: int, lost: Callable[[TakenOverError], None]) -> Iterator[None]:
    """Says every few seconds that the driver is alive; ``lost`` is told once when the search is another driver's."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                store.heartbeat(search_id)
            except TakenOverError as error:
                return lost(error)
            except StorageError:
                continue  # a database that is busy or away for a while; the next write of a trial says so if it stays

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class StopSignals:
    """SIGINT and SIGTERM: the first sets ``stop`` at once, the second raises `LeaveAtOnce`.

    At once, though the main thread may be held inside a library for long: a signal is written to a socket as it comes,
    and a thread of its own reads there.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._heard = self._inside = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears signals while inside; may be entered again, after a library took the signals, which then does not get
        them back; in another thread than the main one nothing is heard."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Callable[..., Any] | int | None] = {
            number: signal.signal(number, self._handle) for number in SIGNALS
        }
        if self._inside:
            before = dict.fromkeys(SIGNALS, self._handle)
        self._inside += 1
        try:
            with self._woken():
                yield
        finally:
            self._inside -= 1
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._heard += 1
        self.stop.set()
        if self._heard > 1:
            raise LeaveAtOnce

    @contextmanager
    def _woken(self) -> Iterator[None]:
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._read, args=(reading,), name="signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writing.close()
            thread.join()
            reading.close()

    def _read(self, reading: socket.socket) -> None:
        while numbers := reading.recv(16):
            if set(numbers) & set(SIGNALS):
                self.stop.set()
