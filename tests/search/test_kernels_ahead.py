"""What workers take of kernels is asked once, before the first trial, and is part of what the database is asked for."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from archsearch.errors import ArchsearchError, OptionsError
from archsearch.search import kernels_ahead
from archsearch.search.kernels_ahead import proven_ahead
from archsearch.search.ray_session import JoiningStopped

USE = ("archsearch_plugins.full.triton", "full_attention", ("sm_90", 64, 0), "bfloat16", "")
PROBLEM: Any = SimpleNamespace(
    space=SimpleNamespace(layers=(), backbones=SimpleNamespace(models=())),
    references=[],
    spec=SimpleNamespace(training=SimpleNamespace(model_dump=lambda mode: {})),
)


class Worker:
    """A Ray that answers with what it is given, or raises it: at once, or after so many seconds of waiting."""

    def __init__(self, answer: Any, *, seconds: float = 0.0) -> None:
        self.answer, self.asked, self.cancelled = answer, 0, 0
        self.seconds, self.now = seconds, 0.0
        self.exceptions = kernels_ahead.ray.exceptions
        self.given: tuple[Any, ...] = ()

    def remote(self, function: Any) -> Worker:
        return self

    def options(self, **resources: Any) -> Any:
        def remote(*given: Any) -> str:
            self.given = given
            return "reference"

        return SimpleNamespace(remote=remote)

    def monotonic(self) -> float:
        return self.now

    def wait(self, references: list[str], *, timeout: float) -> tuple[list[str], list[str]]:
        if self.now >= self.seconds:
            return references, []
        self.now += timeout
        return [], references

    def get(self, reference: str, *, timeout: float) -> Any:
        self.asked += 1
        if self.now < self.seconds:
            raise self.exceptions.GetTimeoutError("nothing came")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self, reference: str, *, force: bool) -> None:
        self.cancelled += 1


CARD = {"cpu": 1.0, "gpu": 1.0}


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ARCHSEARCH_IMPL", "ARCHSEARCH_PROVE"):
        monkeypatch.delenv(variable, raising=False)


def ask(
    worker: Worker,
    demand: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    stop: threading.Event | None = None,
) -> tuple[Any, list[str]]:
    notes: list[str] = []
    monkeypatch.setattr(kernels_ahead, "ray", worker)
    monkeypatch.setattr(kernels_ahead, "time", worker)
    return proven_ahead(PROBLEM, demand, "", stop=stop or threading.Event(), tell=notes.append), notes


def test_a_worker_with_a_card_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker([USE])
    assert ask(worker, CARD, monkeypatch) == (frozenset({USE}), [])
    assert worker.given == ([], {}, "", "")


def test_who_waits_for_long_is_told_what_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = ask(Worker([USE], seconds=300.0), CARD, monkeypatch)
    assert found == frozenset({USE})
    assert [note.split(",")[0] for note in notes] == [
        "before the first trial a worker proves the kernels that the candidates meet"
    ]


def test_a_signal_ends_the_wait_and_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one: what waits in Ray hears of no event."""
    worker, stop = Worker([USE], seconds=300.0), threading.Event()
    stop.set()
    with pytest.raises(JoiningStopped):
        ask(worker, CARD, monkeypatch, stop)
    assert (worker.asked, worker.cancelled) == (0, 1)


def test_a_worker_that_never_answers_is_waited_for_until_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker([USE], seconds=1e9)
    found, notes = ask(worker, CARD, monkeypatch)
    assert found == frozenset()
    assert "which kernels the workers take is not known (nothing came)" in notes[-1]
    assert kernels_ahead.SECONDS < worker.now < kernels_ahead.SECONDS + 5
    assert worker.cancelled == 1


def test_the_policy_of_the_driver_goes_along_and_one_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker([USE])
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    ask(worker, CARD, monkeypatch)
    assert worker.given[-1] == "listed"
    monkeypatch.setenv("ARCHSEARCH_PROVE", "sometimes")
    with pytest.raises(OptionsError, match="ARCHSEARCH_PROVE=sometimes: unknown"):
        ask(worker, CARD, monkeypatch)


@pytest.mark.parametrize(("demand", "impl"), [({"cpu": 1.0}, "auto"), ({"cpu": 1.0, "gpu": 1.0}, "chunkwise")])
def test_nobody_is_asked_where_no_kernel_may_run(
    demand: dict[str, float], impl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", impl)
    worker = Worker([USE])
    assert ask(worker, demand, monkeypatch) == (frozenset(), [])
    assert worker.asked == 0


@pytest.mark.parametrize(
    "error",
    [kernels_ahead.ray.exceptions.GetTimeoutError("slow"), ArchsearchError("no plugin")],
    ids=["late", "broken"],
)
def test_a_worker_that_does_not_answer_is_noted_and_left(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(error)
    found, notes = ask(worker, CARD, monkeypatch)
    assert found == frozenset()
    assert str(error) in notes[0]
    assert worker.cancelled == 1
