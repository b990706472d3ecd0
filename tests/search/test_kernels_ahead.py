"""What workers take of kernels is asked once, before the first trial, and is part of what the database is asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from archsearch.errors import ArchsearchError
from archsearch.search import kernels_ahead
from archsearch.search.kernels_ahead import proven_ahead

USE = ("archsearch_plugins.full.triton", "full_attention", ("sm_90", 64, 0), "bfloat16", "")
PROBLEM: Any = SimpleNamespace(
    space=SimpleNamespace(layers=(), backbones=SimpleNamespace(models=())),
    references=[],
    spec=SimpleNamespace(training=SimpleNamespace(model_dump=lambda mode: {})),
)


class Worker:
    """A Ray that answers at once with what it is given, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked, self.cancelled = answer, 0, 0
        self.exceptions = kernels_ahead.ray.exceptions

    def remote(self, function: Any) -> Worker:
        return self

    def options(self, **resources: Any) -> Any:
        return SimpleNamespace(remote=lambda *given: "reference")

    def get(self, reference: str, *, timeout: float) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self, reference: str, *, force: bool) -> None:
        self.cancelled += 1


def ask(worker: Worker, demand: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    notes: list[str] = []
    monkeypatch.setattr(kernels_ahead, "ray", worker)
    return proven_ahead(PROBLEM, demand, "", tell=notes.append), notes


def test_a_worker_with_a_card_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    assert ask(Worker([USE]), {"cpu": 1.0, "gpu": 1.0}, monkeypatch) == (frozenset({USE}), [])


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
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    worker = Worker(error)
    found, notes = ask(worker, {"cpu": 1.0, "gpu": 1.0}, monkeypatch)
    assert found == frozenset()
    assert str(error) in notes[0]
    assert worker.cancelled == 1
