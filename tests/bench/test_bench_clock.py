"""The clock of a card and the choice of a graph, with a card that is only written down."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench_samples import CPU, ScriptedClock

from archsearch.bench import clock, kernels
from archsearch.bench.clock import CudaClock, WallClock, clock_for


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a card would have been told, in order."""
    told: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            told.append("event")

        def elapsed_time(self, other: Event) -> float:
            told.append("read")
            return 3.0

    class Buffer:
        def zero_(self) -> None:
            told.append("flush")

    sizes: list[int] = []

    def empty(size: int, **options: Any) -> Buffer:
        sizes.append(size)
        return Buffer()

    cuda = SimpleNamespace(
        Event=Event,
        get_device_properties=lambda device: SimpleNamespace(L2_cache_size=100),
        _sleep=lambda cycles: told.append("sleep"),
        synchronize=lambda device: told.append("wait"),
    )
    monkeypatch.setattr(clock, "torch", SimpleNamespace(cuda=cuda, empty=empty, uint8=torch.uint8))
    return told


def test_a_card_is_timed_by_events_behind_a_cold_cache_and_read_after_it_is_done(log: list[str]) -> None:
    taken = CudaClock(torch.device("cuda"))(lambda: log.append("work"))
    assert taken == pytest.approx(0.003)
    assert log == ["flush", "sleep", "event", "work", "event", "wait", "read"]


def test_the_clock_belongs_to_the_device(log: list[str]) -> None:
    assert isinstance(clock_for(CPU), WallClock)
    assert isinstance(clock_for(torch.device("cuda")), CudaClock)


def prepared(captured: Callable[..., Any], phase: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str, str]:
    monkeypatch.setattr(kernels, "captured", captured)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    case: Any = SimpleNamespace(phase=phase, call=lambda contender: "eager")
    bench: Any = SimpleNamespace(device=torch.device("cuda"), clock=ScriptedClock(1.0))
    return kernels._prepared(case, None, bench)  # type: ignore[arg-type]


def refuse(call: object) -> object:
    raise RuntimeError("called a synchronizing CUDA operation")


def test_a_step_is_a_graph_and_a_sequence_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepared(lambda call: f"graph of {call}", "decode", monkeypatch) == ("graph of eager", "cuda graph", "")
    assert prepared(refuse, "forward", monkeypatch) == ("eager", "wall clock", "")


def test_a_step_that_cannot_be_captured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    call, timed, note = prepared(refuse, "decode", monkeypatch)
    assert (call, timed) == ("eager", "wall clock")
    assert note == "no CUDA graph: RuntimeError: called a synchronizing CUDA operation"
