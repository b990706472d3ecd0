"""The hooks of a plugin, from their specifications."""

from __future__ import annotations

import inspect
from typing import Any

from archsearch import hookspecs
from archsearch.hookspecs import HOOKS, MEASURING
from reference.texts import code, plain


def hooks_reference() -> str:
    """Every hook: how it is declared, what it is for, and what it is given to call."""
    return "\n\n".join(map(_section, HOOKS))


def _section(name: str) -> str:
    hook = getattr(hookspecs, name)
    parts = [f"### {name}", f"```python\n@hookimpl\n{_declared(name, hook)}\n```", plain(hook.__doc__ or "")]
    for parameter in inspect.signature(hook).parameters.values():
        given = getattr(hookspecs, str(parameter.annotation), None)
        if given is not None:
            parts.append(f"{code(parameter.name)} is called as follows.")
            parts.append(f"```python\n{_declared(parameter.name, given.__call__)}\n```")
            parts.append(plain(given.__call__.__doc__ or ""))
    if name in MEASURING:
        parts.append("It adds to what the same plugin registers; no result of a trained model depends on it.")
    return "\n\n".join(parts)


def _declared(name: str, function: Any) -> str:
    signature = str(inspect.signature(function)).replace("'", "").replace("(self, ", "(")
    return f"def {name}{signature}: ..."
