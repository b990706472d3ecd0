"""Examine: everything that can be said of a mixer or a task without a search, one finding a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import ArchsearchError, foreign_error, said
from archsearch.laws import untrainable
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerPlugin
from archsearch.registry import Registry
from archsearch.testing.case import Case
from archsearch.testing.findings import Finding, Group, Status, unregistered
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.units import format_quantity

CONTEXTS = (1024, 32768)
"""Contexts at which costs are told."""
STEPS = 6
"""Steps of training that are tried."""
_WORKER_SECONDS = 120
_MODEL = ModelSpec(d_model=32, n_heads=4, n_kv_heads=2, channel_mixer="none", short_conv=4)

_WORKER = """
import json, sys
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import HybridLM
from archsearch.registry import load_registry
pattern, model, mixers = json.loads(sys.stdin.read())
registry = load_registry()
HybridLM(ArchSpec.parse(pattern, registry, ModelSpec(**model)), registry)
print(json.dumps({name: [registry.version_of(name), registry.source_of(name)] for name in mixers}))
"""


def examine_mixer(name: str, registry: Registry, impls: Sequence[str] = ("auto",)) -> Iterator[Finding]:
    """Registration, costs, every law for each case and implementation, a short training, and a build in a process of
    its own.

    `name` is a mixer, then its defaults, its presets and its own cases (`MixerPlugin.conformance`) are tried; or a
    preset or a layer as notation writes it, then that alone. Raises `UnknownNameError` for a name that nothing here
    claims, `NotationError` for text that cannot be read.
    """
    wrong = unregistered(name, registry)
    if wrong is not None:
        yield wrong
        return
    layer = registry.layer(name)
    plugin = registry.mixer(layer.mixer)
    yield Finding(group="registration", name=layer.mixer, status="ok", text=_registered(layer.mixer, registry))
    cases = _cases(name, layer, plugin)
    for label, values in cases.items():
        yield from _costs(label, values, plugin, registry)
        for impl in impls:
            yield from _laws(label, values, plugin, registry, impl, once=label == next(iter(cases)))
    first = next(iter(cases.values()))
    yield _training(first, plugin, registry)
    yield _in_a_worker(first, plugin, registry)


def _registered(mixer: str, registry: Registry) -> str:
    report = next(report for report in registry.reports() if mixer in report.mixers)
    return f"{report.key} {registry.version_of(mixer)}, source {registry.source_of(mixer)}"


def _cases(name: str, layer: LayerSpec, plugin: MixerPlugin[Any]) -> dict[str, Mapping[str, Any]]:
    if name != plugin.name:
        return {name: {key: getattr(layer.options, key) for key in type(layer.options).model_fields}}
    return {"defaults": {}, **plugin.presets, **plugin.conformance.get("cases", {})}


def _costs(label: str, values: Mapping[str, Any], plugin: MixerPlugin[Any], registry: Registry) -> Iterator[Finding]:
    def told() -> str:
        arch = _arch(values, plugin, registry)
        index = [layer.mixer for layer in arch.layers].index(plugin.name)
        parts = []
        for context in CONTEXTS:
            cost = CostModel(registry).cost(arch, context).layers[index]
            state, decode = (
                format_quantity(cost.state_bytes, unit="bytes"),
                format_quantity(cost.decode_flops.total, unit="FLOP"),
            )
            parts.append(f"{state} of state and {decode} a decoded token at {context}")
        return f"{cost.mixer_params:,} parameters; {'; '.join(parts)} (d_model {_MODEL.d_model})"

    yield _found("costs", "costs", label, told)


def _arch(values: Mapping[str, Any], plugin: MixerPlugin[Any], registry: Registry) -> ArchSpec:
    """The layers that the case stands among, on the small backbone."""
    layers = Case.of(plugin, values, registry=registry).layer.pattern or ()
    return ArchSpec(model=_MODEL, layers=layers)


def _laws(
    label: str, values: Mapping[str, Any], plugin: MixerPlugin[Any], registry: Registry, impl: str, *, once: bool
) -> Iterator[Finding]:
    shown = label if impl == "auto" else f"{label}, {impl}"
    try:
        case = Case.of(plugin, values, registry=registry, impl=impl)
    except ArchsearchError as error:
        yield Finding(group="laws", name="options", status="failed", case=shown, text=str(error))
        return
    for law in LAWS:
        if once or not law.once:
            yield _law(law, case, shown)


def _law(law: Law, case: Case, shown: str) -> Finding:
    outcome = tried(law, case)
    status: Status = "ok" if outcome.status == "passed" else outcome.status
    return Finding(group="laws", name=law.name, status=status, case=shown, text=outcome.text or law.says)


def _training(values: Mapping[str, Any], plugin: MixerPlugin[Any], registry: Registry) -> Finding:
    from archsearch.recipe import Recipe
    from archsearch.tasks import resolve_task
    from archsearch.training import evaluate

    arch = _arch(values, plugin, registry)
    refused = untrainable(arch, registry)
    if refused is not None:
        return Finding(group="training", name="training", status="skipped", text=refused)

    def told() -> str:
        recipe = Recipe.read({"steps": STEPS, "batch_size": 8, "learning_rates": [1e-3], "device": "cpu"})
        found = evaluate(arch, resolve_task("mqar", registry), recipe, 0, registry=registry)
        if found.status != "complete":
            raise ArchsearchError(f"{STEPS} steps of mqar {found.status}: {found.reason}")
        return f"{STEPS} steps of mqar, then judged: {found.metric} {found.test[found.metric]:.3f}"

    return _found("training", "training", "", told)


def _in_a_worker(values: Mapping[str, Any], plugin: MixerPlugin[Any], registry: Registry) -> Finding:
    """In a process that starts in a folder of its own, as one of Ray's may."""

    def told() -> str:
        arch = _arch(values, plugin, registry)
        request = json.dumps([arch.pattern(registry), arch.model.model_dump(mode="json"), [plugin.name]])
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _WORKER],
                input=request,
                cwd=elsewhere,
                capture_output=True,
                text=True,
                timeout=_WORKER_SECONDS,
            )
        here = [registry.version_of(plugin.name), registry.source_of(plugin.name)]
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise ArchsearchError(
                f"a process in another folder cannot build it ({last}): install the plugin's package, or put the "
                "absolute path of its folder into PYTHONPATH"
            )
        there = json.loads(done.stdout)[plugin.name]
        if there != here:
            raise ArchsearchError(
                f"a process in another folder has {there[0]} of source {there[1]}, this one {here[0]} of {here[1]}: "
                "install one of them"
            )
        return "a process in another folder builds the same version and source"

    return _found("worker", "worker", "", told)


def _found(group: Group, name: str, case: str, told: Callable[[], str]) -> Finding:
    """What `told` says, or why it could not."""
    try:
        return Finding(group=group, name=name, status="ok", case=case, text=told())
    except subprocess.TimeoutExpired:
        text = f"a process in another folder had not built it in {_WORKER_SECONDS} s"
    except ArchsearchError as error:
        text = str(error)
    except Exception as error:  # the plugin boundary: anything may come out of foreign code
        text = str(foreign_error("the examination", name, error))
    return Finding(group=group, name=name, status="failed", case=case, text=" ".join(text.split()))


def examine_task(name: str, registry: Registry) -> Iterator[Finding]:
    """Registration and every law of `TaskConformance` for each setting; needs pytest, which holds those laws."""
    task = registry.task(name)
    version, source = registry.task_version_of(name), registry.task_source_of(name)
    yield Finding(group="registration", name=name, status="ok", text=f"{version}, source {source}")
    try:
        from archsearch.testing.task_conformance import TaskConformance
    except ImportError as error:
        yield Finding(group="laws", name="laws", status="skipped", text=f"{said(error)}: pip install pytest")
        return
    suite = type("Suite", (TaskConformance,), {"task": task})()
    for law in [law for law in dir(suite) if law.startswith("test_")]:
        for setting in _settings(suite, law, task):
            yield _task_law(suite, law, setting, task)


def _settings(suite: Any, law: str, task: type[Any]) -> Iterable[str]:
    needs_one = "made" in getattr(suite, law).__code__.co_varnames[: getattr(suite, law).__code__.co_argcount]
    return tuple(task.settings) if needs_one else ("",)


def _task_law(suite: Any, law: str, setting: str, task: type[Any]) -> Finding:
    name = law.removeprefix("test_")
    try:
        getattr(suite, law)(*([task.make(setting)] if setting else []))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a law fails by an assertion or by pytest's own exceptions, a task by anything
        lines = said(error) if not isinstance(error, AssertionError) else str(error).strip().partition("\n")[0]
        return Finding(group="laws", name=name, status="failed", case=setting, text=lines or "it does not hold")
    return Finding(group="laws", name=name, status="ok", case=setting, text=name.replace("_", " "))
