"""Triton's interpreter without the work that it repeats, which is more than half of its time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import triton.language as tl
from triton._utils import validate_block_shape
from triton.language import core
from triton.runtime import interpreter

_numpy_dtype = interpreter._get_np_dtype
_patch_lang, _launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
_patched: set[str] | None = None
"""Which modules have been patched in the launch that runs now; None while none does."""


def install() -> None:
    """The interpreter patches the language for a launch, and looks at each of its several hundred names again for every
    call of a device function, of which there are thousands: once a launch is enough. Every value of a kernel is made
    with its type, its shape and its kind in NumPy, of which there are few that differ."""
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = _patched_once, _launched
    interpreter._get_np_dtype = _numpy_dtype_of
    tl.tensor.__init__, tl.block_type.__init__ = _init_tensor, _init_block_type


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


def _numpy_dtype_of(kind: Any) -> Any:
    scalar = kind.element_ty if isinstance(kind, tl.block_type) else kind
    return _numpy_dtype(scalar) if isinstance(scalar, tl.pointer_type) else _numpy_dtype_of_scalar(scalar)


_numpy_dtype_of_scalar = cache(_numpy_dtype)


def _init_tensor(self: Any, handle: Any, kind: Any) -> None:
    """As `tl.tensor` does it."""
    self.handle, self.type, self.dtype = handle, kind, kind.scalar
    self.numel, self.shape = kind.constants if kind.is_block() else _CONSTANTS_OF_A_SCALAR


def _init_block_type(self: Any, element_ty: Any, shape: Any) -> None:
    """As `tl.block_type` does it; ``constants`` are the number and the shape of a tensor's elements."""
    assert isinstance(shape, list | core.tuple)
    self.element_ty = element_ty
    self.shape, self.numel, self.constants, text = _of_sizes(tuple(core._unwrap_shape(shape)))
    self.name = f"<{text}, {element_ty}>"


@cache
def _of_sizes(sizes: tuple[int, ...]) -> tuple[Any, int, tuple[Any, Any], str]:
    if not sizes:
        raise TypeError("0d block_type is forbidden")
    shape = core.tuple(sizes)
    return shape, validate_block_shape(sizes), _constants(sizes), str(shape)


def _constants(sizes: tuple[int, ...]) -> tuple[Any, Any]:
    return tl.constexpr(math.prod(sizes)), core.tuple([tl.constexpr(size) for size in sizes])


_CONSTANTS_OF_A_SCALAR = _constants(())
