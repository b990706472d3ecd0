"""Waiting: a call of the network that ends in time, whatever it does, and that Ctrl-C ends at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What `call` returns or raises, waited for at most `seconds`; then `TimeoutError`.

    The call runs on a thread that does not keep the process: looking up a name cannot be interrupted, and a server
    that sends a byte now and then passes every limit of a socket.
    """
    future: Future[Answer] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="archsearch-asking").start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
