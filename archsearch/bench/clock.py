"""Clocks: how long one call of a function takes, on the device that does the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch

from archsearch.bench.timing import wall_clock

Timed = Literal["events", "cuda graph", "wall clock"]

_AHEAD_CYCLES = 4_000_000
"""Cycles, about two milliseconds, that the device waits while the host enqueues what is measured after it."""

_CAPTURE_WARMUP = 2


class Clock(Protocol):
    """Seconds of one call, and how they were taken."""

    timed: Timed

    def __call__(self, function: Callable[[], object]) -> float: ...


class WallClock:
    """The host's clock, for a device that works as it is told."""

    timed: Timed = "wall clock"

    def __call__(self, function: Callable[[], object]) -> float:
        return wall_clock(function)


class CudaClock:
    """Events around one call, which finds none of its inputs in the L2 cache.

    Before the first event the device fills a buffer of twice the cache, and then waits for a moment, so that the
    host is ahead and its launches are no part of the time unless there are very many.
    """

    timed: Timed = "events"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self._buffer = torch.empty(2 * cache, dtype=torch.uint8, device=device)

    def __call__(self, function: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._buffer.zero_()
        torch.cuda._sleep(_AHEAD_CYCLES)
        start.record()
        function()
        end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) / 1e3


def clock_for(device: torch.device) -> Clock:
    """Events on CUDA, else the host's clock."""
    return CudaClock(device) if device.type == "cuda" else WallClock()


@contextmanager
def _no_synchronisation() -> Iterator[None]:
    """Whatever makes the host wait for the device is an error, before a capture would break on it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a prototype, and says so
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def captured(function: Callable[[], object]) -> Callable[[], object]:
    """`function` as a CUDA graph, to be replayed without launches by the host; its memory lives as long as the graph.

    Raises `RuntimeError` for what cannot be captured: first of all for a read of the device by the host.
    """
    function()
    with _no_synchronisation():
        function()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_CAPTURE_WARMUP):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = function()

    def replay(graph: torch.cuda.CUDAGraph = graph, kept: object = kept) -> None:
        graph.replay()

    return replay
