"""Examine an evaluator: its registration and every law of its suite, one finding a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from archsearch.errors import said
from archsearch.registry import Registry
from archsearch.testing.findings import Finding


def examine_evaluator(name: str, registry: Registry) -> Iterator[Finding]:
    """Registration and every law of `EvaluatorConformance` on each of its tasks; needs pytest, which holds them."""
    evaluator = registry.evaluator(name)
    version, source = registry.evaluator_version_of(name), registry.evaluator_source_of(name)
    told = ", ".join(f"{metric} ({one.direction})" for metric, one in evaluator.metrics.items())
    yield Finding(group="registration", name=name, status="ok", text=f"{version}, source {source}: {told}")
    try:
        from archsearch.testing.evaluator_conformance import EvaluatorConformance
    except ImportError as error:
        yield Finding(group="laws", name="laws", status="skipped", text=f"{said(error)}: pip install pytest")
        return
    suite = type("Suite", (EvaluatorConformance,), {"evaluator": evaluator})()
    for law in [law for law in dir(suite) if law.startswith("test_")]:
        call = getattr(suite, law)
        needs_task = "task" in call.__code__.co_varnames[: call.__code__.co_argcount]
        for task in suite.tasks if needs_task else ("",):
            yield _law(law.removeprefix("test_"), call, task)


def _law(name: str, call: object, task: str) -> Finding:
    assert callable(call)
    try:
        call(*([task] if task else []))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a law fails by an assertion, an evaluator by anything
        text = " ".join(said(error).split()) or "it does not hold"
        return Finding(group="laws", name=name, status="failed", case=task, text=text)
    return Finding(group="laws", name=name, status="ok", case=task, text=name.replace("_", " "))
