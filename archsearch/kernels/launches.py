"""Launches: what Triton would run, listed instead of run, where no card is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest.mock import patch

from archsearch.errors import KernelUnavailableError
from archsearch.kernels.build import Build
from archsearch.kernels.config import Config
from archsearch.kernels.device import interpreting, standing_in

StandIn: TypeAlias = Callable[[Mapping[str, Any]], Iterable[int]]
"""Fills what a kernel chooses, given its arguments, as on random inputs; gives the addresses of the tensors."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch: the ``@triton.jit`` function, the programs along each axis, its arguments by name; ``stood_in`` are
    addresses of tensors that were filled in its place."""

    fn: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int
    stood_in: frozenset[int] = frozenset()

    @property
    def programs(self) -> int:
        """Of the whole grid."""
        x, y, z = self.grid
        return x * y * z

    @property
    def constants(self) -> dict[str, Any]:
        """Arguments that the code is compiled for."""
        constant = {parameter.name for parameter in self.fn.params if parameter.is_constexpr}
        return {name: value for name, value in self.arguments.items() if name in constant or value is None}

    def build(self, op: str) -> Build:
        """The kernel as it is launched, under the name of its op."""
        constants = self.constants
        types = {name: _type(value) for name, value in self.arguments.items() if name not in constants}
        config = Config(tiles={}, num_warps=self.num_warps, num_stages=self.num_stages)
        return Build(
            op=op, name=self.fn.__name__, fn=self.fn, signature=types, constexprs=constants, config=config, head_dim=0
        )


@contextmanager
def listed_launches(arch: str, stand_ins: Mapping[str, StandIn] | None = None) -> Iterator[list[Launch]]:
    """While the block runs, tensors on the CPU count as a card's of that architecture, and kernels are listed instead
    of run: what they would have written stays as it was, but for what `stand_ins` fill, by the kernel's name.

    Raises `KernelUnavailableError` under Triton's interpreter."""
    if interpreting():
        raise KernelUnavailableError("TRITON_INTERPRET is set, and interpreted kernels are not launched: unset it")
    from triton.runtime.jit import JITFunction

    found: list[Launch] = []

    def listed(fn: Any, *args: Any, grid: Any, warmup: bool, num_warps: int, num_stages: int, **named: Any) -> None:
        arguments = dict(zip(fn.arg_names, args, strict=False)) | named
        defaults = {each.name: each.default for each in fn.params if each.name not in arguments}
        sizes = grid(arguments) if callable(grid) else grid
        x, y, z = (*sizes, 1, 1)[:3]
        if x * y * z == 0:
            return
        fill = (stand_ins or {}).get(fn.__name__)
        launch = Launch(
            fn=fn,
            grid=(x, y, z),
            arguments={name: {**defaults, **arguments}[name] for name in fn.arg_names},
            num_warps=num_warps,
            num_stages=num_stages,
            stood_in=frozenset() if fill is None else frozenset(fill(arguments)),
        )
        found.append(launch)

    with standing_in(arch), patch.object(JITFunction, "run", listed):
        yield found


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    from triton.runtime.jit import mangle_type

    return str(mangle_type(value))
