"""Testing for plugin authors: the conformance suites to inherit, and a toy mixer to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsearch.testing.conformance import MixerConformance
    from archsearch.testing.evaluator_conformance import EvaluatorConformance
    from archsearch.testing.task_conformance import TaskConformance

__all__ = ["EvaluatorConformance", "MixerConformance", "TaskConformance"]


def __getattr__(name: str) -> Any:
    # the suites import pytest, and that of mixers torch, which the toy next to them must not
    if name == "MixerConformance":
        from archsearch.testing.conformance import MixerConformance

        return MixerConformance
    if name == "EvaluatorConformance":
        from archsearch.testing.evaluator_conformance import EvaluatorConformance

        return EvaluatorConformance
    if name == "TaskConformance":
        from archsearch.testing.task_conformance import TaskConformance

        return TaskConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
