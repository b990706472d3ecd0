"""The hooks that a plugin may implement. A plugin is a module (or object) with `hookimpl` functions of these names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pluggy

from archsearch.mixer import MixerPlugin

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

PROJECT = "archsearch"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class TaskType(Protocol):
    """What the registry must know of a task class; the whole of it is `archsearch.tasks.Task`."""

    name: ClassVar[str]
    version: ClassVar[int]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]]


class RegisterOps(Protocol):
    """What `register_ops` is given."""

    def __call__(self, mixer: str, ops: Callable[[], Iterable[BenchOp]], *, names: tuple[str, ...] = ()) -> None:
        """``ops()`` gives the pure ops of a mixer of this plugin; ``names`` are those of ops that are named neither as
        the mixer nor as one of its presets."""
        ...


class RegisterKernels(Protocol):
    """What `register_kernels` is given."""

    def __call__(
        self, mixer: str, builds: Callable[[str], Iterable[Build]], *, checks: Callable[[], Iterable[Check]] = ...
    ) -> None:
        """``builds(arch)`` gives the Triton kernels of a mixer of this plugin as they run on ``"sm_90"``, ...;
        ``checks()`` what every row of their tables is asked before "auto" takes it: without, none is taken."""
        ...


@hookspec
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Call ``register(plugin)`` once for each token mixer."""


@hookspec
def register_tasks(register: Callable[[type[Any]], None]) -> None:
    """Call ``register(task_class)`` once for each task."""


@hookspec
def register_metrics(register: Callable[[Any], None]) -> None:
    """Call ``register(evaluator)`` once for each evaluator, an instance of `archsearch.evaluator.Evaluator`, whose
    metrics a search may ask for of every trained model."""


@hookspec
def register_ops(register: RegisterOps) -> None:
    """Call ``register(mixer, ops)`` for each mixer whose pure ops ``archsearch bench kernels`` shall measure."""


@hookspec
def register_kernels(register: RegisterKernels) -> None:
    """Call ``register(mixer, builds)`` for each mixer whose kernels ``archsearch kernels`` shall compile and prove."""


HOOKS = ("register_mixers", "register_tasks", "register_metrics", "register_ops", "register_kernels")
"""The names of the hooks."""

MEASURING = ("register_ops", "register_kernels")
"""Hooks that add to what the same plugin registers: no figure of a trained model comes from them."""
