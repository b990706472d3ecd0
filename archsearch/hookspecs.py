"""The hooks that a plugin may implement. A plugin is a module (or object) with `hookimpl` functions of these names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import pluggy

from archsearch.mixer import MixerPlugin

PROJECT = "archsearch"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class TaskType(Protocol):
    """What the registry must know of a task class; the whole of it is `archsearch.tasks.Task`."""

    name: ClassVar[str]
    version: ClassVar[int]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]]


@hookspec
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Call ``register(plugin)`` once for each token mixer."""


@hookspec
def register_tasks(register: Callable[[type[Any]], None]) -> None:
    """Call ``register(task_class)`` once for each task."""


HOOKS = ("register_mixers", "register_tasks")
"""The names of the hooks."""
