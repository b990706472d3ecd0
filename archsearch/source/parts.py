"""Parts: what a result is made of, by name, version and digest; and the digests of plugins and tasks."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from archsearch.source.closure import Closure, core_modules
from archsearch.source.modules import Modules
from archsearch.source.values import UnknownSourceError, Values, is_packaged

UNKNOWN = "unknown-"
"""How the digest of code begins that cannot be told from other code: no result of it is used again."""

_log = logging.getLogger("archsearch.source")
_tokens: dict[int, tuple[object, str]] = {}
"""By id of an object, which is held so that no other gets its id, the token that stands for its source."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of what computes a result: ``mixer:linear``, ``task:mqar`` or ``core``, its version as a person tells it
    ("archsearch 0.1.0 r1"), and the digest of its source."""

    name: str
    version: str
    digest: str


class Sources:
    """Digests of plugins and tasks, as the files are while this object lives."""

    def __init__(self) -> None:
        self._modules = Modules()

    def of_plugin(self, plugin: Any) -> str:
        """The digest of a mixer's plugin: its classes, its options, all that they reach, and its own attributes.

        16 hexadecimal digits, or "unknown-" and a token that stays the object's while the process lives.
        """
        state = object.__getstate__(plugin)
        return self._digest(plugin, (type(plugin), plugin.options), state)

    def of_task(self, task: type[Any]) -> str:
        """The digest of a task's class, its options, and all that they reach."""
        return self._digest(task, (task, getattr(task, "options_type", None)), None)

    def of_evaluator(self, evaluator: Any) -> str:
        """The digest of an evaluator: its class, all that it reaches, and its own attributes."""
        return self._digest(evaluator, (type(evaluator),), object.__getstate__(evaluator))

    def _digest(self, owner: object, classes: tuple[type | None, ...], state: object) -> str:
        closure = Closure(self._modules, home=getattr(classes[0], "__module__", ""), covered=core_modules())
        values = Values(self._modules, closure)
        try:
            for start in classes:
                self._add(start.__mro__ if start is not None else (), closure, values)
            values.add(_ordered(state))
            if closure.stale:
                names = ", ".join(closure.stale)
                _log.warning("%s changed since this process loaded it: start a new one, results are not reused", names)
                return unknown(owner)
            return closure.digest(*values.said)
        except (UnknownSourceError, OSError, RecursionError) as error:
            _log.info("results of %s are never used again: %s", owner, error)
            return unknown(owner)

    def _add(self, classes: Iterable[type], closure: Closure, values: Values) -> None:
        aside = frozenset(found.__name__ for found in classes)
        for found in classes:
            if is_packaged(found, self._modules):
                values.said.append(f"class {found.__qualname__}")
                closure.add(found.__module__, aside)
            else:
                values.add(found)


def _ordered(state: object) -> object:
    return dict(sorted(state.items())) if isinstance(state, dict) else state


def unknown(owner: object) -> str:
    """The digest of an object whose source cannot be told: random, and the same as long as the process lives."""
    return _tokens.setdefault(id(owner), (owner, UNKNOWN + secrets.token_hex(8)))[1]
