"""Finding a task by what a person types: ``mqar``, ``mqar:capacity``, ``mqar:noisy_update(pairs=4)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from archsearch.errors import PluginError, SpecError, foreign_code
from archsearch.notation import parse_call
from archsearch.tasks.base import Task


class TaskRegistry(Protocol):
    """Finds the task class of a name; `archsearch.registry.Registry` is one."""

    def task(self, name: str) -> type[Any]:
        """Raises `UnknownNameError` or `ConflictError`."""
        ...


def resolve_task(
    text: str, registry: TaskRegistry, *, setting: str | None = None, options: Mapping[str, Any] | None = None
) -> Task:
    """The task that `text` names; `setting` and `options` add to what it says, and must not contradict its setting.

    Raises `NotationError`, `UnknownNameError`, `ConflictError` or `OptionsError`.
    """
    name, written, overrides = parse_call(text)
    if written is not None and setting is not None and written != setting:
        raise SpecError(f'task "{text}" names the setting {written}, but the setting {setting} is given too: drop one')
    found = registry.task(name)
    if not issubclass(found, Task):
        raise PluginError(f'task "{name}" is {found.__name__}, which is no subclass of archsearch.tasks.Task')
    with foreign_code(f'task "{name}"', "make"):
        return found.make(written if written is not None else setting, {**overrides, **(options or {})})
