"""Waiting: a call that ends, one that raises, and one that never would."""

from __future__ import annotations

import threading

import pytest

from archsearch.waiting import within


def test_what_the_call_returns() -> None:
    assert within(60, lambda: 7) == 7


@pytest.mark.parametrize("error", [ValueError("odd"), TimeoutError("its own")])
def test_what_the_call_raises(error: Exception) -> None:
    def call() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        within(60, call)
    assert caught.value is error


def test_a_call_that_never_ends() -> None:
    end = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="no answer in 0 s"):
            within(0.05, end.wait)
    finally:
        end.set()
