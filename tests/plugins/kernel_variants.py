"""Variants: what Triton would compile for the launches of a block of code, by its own key of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction, create_function_from_signature

from archsearch.kernels import interpreting


class Variant(NamedTuple):
    """A kernel, each argument's type (a constant's value) and what is known of it ("D": a multiple of 16; 1), warps
    and stages."""

    kernel: str
    arguments: tuple[tuple[str, Any, Any], ...]
    options: tuple[tuple[str, Any], ...]


@contextmanager
def variants() -> Iterator[list[Variant]]:
    """While the block runs, kernels are listed instead of run; what they would have written stays as it was."""
    assert interpreting(), "kernels are listed where Triton's interpreter stands in for a card"
    found: list[Variant] = []

    def listed(kernel: InterpretedFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append(variant_of(kernel, args, options))

    with patch.object(InterpretedFunction, "run", listed):
        yield found


def variant_of(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Variant:
    """Of one launch, for a Hopper card; as `JITFunction.run` finds its key."""
    jit = _compiled(kernel)
    _, found, left = _binder(kernel)(*args, **options)
    named = zip(jit.arg_names, found, strict=True)
    return Variant(jit.__name__, tuple((name, *given) for name, given in named), tuple(sorted(left.items())))


@cache
def _compiled(kernel: Any) -> Any:
    return JITFunction(kernel.fn, **kernel.kwargs)


@cache
def _binder(kernel: Any) -> Any:
    jit = _compiled(kernel)
    return create_function_from_signature(jit.signature, jit.params, make_backend(GPUTarget("cuda", 90, 32)))
