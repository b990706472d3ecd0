"""Triton's interpreter without the work that it repeats, which is half of its time in kernels of many parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

_patch_lang, _launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
_patched: set[str] | None = None
"""Which modules have been patched in the launch that runs now; None while none does."""


def install() -> None:
    """The interpreter patches the language for a launch, and looks at each of its several hundred names again for every
    call of a device function, of which there are thousands: once a launch is enough."""
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = _patched_once, _launched


def _launched(self: interpreter.GridExecutor, *arguments: Any, **named: Any) -> None:
    global _patched
    before, _patched = _patched, set()
    try:
        _launch(self, *arguments, **named)
    finally:
        _patched = before


def _patched_once(fn: Callable[..., Any]) -> Any:
    if _patched is None:
        return _patch_lang(fn)
    modules = _modules(fn)
    if modules <= _patched:
        return None  # which a call of a device function does not look at
    _patched.update(modules)
    return _patch_lang(fn)


@cache
def _modules(fn: Callable[..., Any]) -> frozenset[str]:
    """Those of Triton that the interpreter patches for a function."""
    return frozenset(value.__name__ for value in fn.__globals__.values() if value is tl or value is tl.core)
