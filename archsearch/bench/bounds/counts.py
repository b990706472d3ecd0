"""Counts: what the programs of one launch do, from the machine code and the launch's arguments."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels.launches import Launch
from archsearch.kernels.machine_code.cards import Card
from archsearch.kernels.machine_code.code import Code
from archsearch.kernels.machine_code.emulation import Buffer, Touched, Trace, emulate
from archsearch.kernels.machine_code.ptx import Block

_SAMPLES = 12
_GOLDEN = 0.6180339887498949
_SPECIAL = (
    "ex2.",
    "lg2.",
    "rcp.",
    "rsqrt.",
    "sqrt.",
    "tanh.",
    "sin.",
    "cos.",
    "div.full.f32",
    "div.approx",
    "div.rn.f32",
)


@dataclass(kw_only=True)
class Counts:
    """Of an average program: FLOPs of matrix instructions by unit and type; instructions that its warps issue, as many
    as the cubin has for those of the PTX; those on the special function unit; memory by argument; and the clocks of
    what must wait for one another: loads, and writes of shared memory behind barriers. ``passes`` are those of its
    most frequent block."""

    flops: dict[tuple[str, str], float] = field(default_factory=dict)
    issued: float = 0.0
    special: float = 0.0
    memory: dict[str, Touched] = field(default_factory=dict)
    loads_clocks: float = 0.0
    phases_clocks: float = 0.0
    passes: float = 0.0
    unknown: bool = False

    @property
    def sectors(self) -> float:
        """Bytes that its warps ask L2 for."""
        return sum(touched.sectors for touched in self.memory.values())


def count(launch: Launch, code: Code, card: Card, unknown: set[int]) -> Counts:
    """Of a few programs spread over the grid. `unknown` are addresses of tensors whose integers nobody has."""
    names = [name for name in launch.arguments if name not in launch.constants]
    values = [launch.arguments[name] for name in names]
    arguments = [_argument(value, unknown) for value in values]
    places = sorted({int(launch.programs * ((0.5 + step * _GOLDEN) % 1)) for step in range(_SAMPLES)})
    total = Counts()
    for place in places:
        x, y = launch.grid[:2]
        at = (place % x, place // x % y, place // (x * y))
        found = emulate(code.program, arguments, at, launch.grid, 32 * launch.num_warps)
        _add(total, found, code, card, launch.num_warps, names, 1 / len(places))
    return total


def note_written(launch: Launch, written: Iterable[str], unknown: set[int]) -> None:
    """Adds the tensors that a launch writes, by the names of its arguments, to those whose integers nobody has, but for
    those that were filled in its place."""
    for name in written:
        value = launch.arguments.get(name)
        if isinstance(value, Tensor):
            unknown.add(value.data_ptr())
    unknown -= launch.stood_in


def asked(launch: Launch, unknown: set[int]) -> str:
    """Text of all that the counts of a compiled launch depend on: its numbers, the sizes of its tensors, and a checksum
    of the integers that are known."""
    return repr([_mark(value, unknown) for value in launch.arguments.values()])


def _mark(value: Any, unknown: set[int]) -> object:
    if not isinstance(value, Tensor):
        return value
    plain = value.is_floating_point() or not value.numel() or value.data_ptr() in unknown
    held = None if plain else zlib.crc32(value.detach().reshape(-1).view(torch.uint8).numpy().data)
    return tuple(value.shape), value.stride(), value.dtype, held


def size_of(value: Any) -> int:
    """Bytes from the first to the last element of a tensor; 0 of anything else."""
    if not isinstance(value, Tensor) or not value.numel():
        return 0
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return min(extent * value.itemsize, value.numel() * value.itemsize)


def _argument(value: Any, unknown: set[int]) -> int | Buffer:
    if not isinstance(value, Tensor):
        return value if isinstance(value, int) else 0
    if value.is_floating_point() or not value.numel() or value.data_ptr() in unknown:
        return Buffer(size=size_of(value))
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return Buffer(size=size_of(value), contents=value.detach().as_strided((extent,), (1,)).numpy())


def _add(total: Counts, found: Trace, code: Code, card: Card, num_warps: int, names: list[str], weight: float) -> None:
    program, scale = code.program, _issued_per_instruction(code)
    for index, passes in found.passes.items():
        block, times = program.blocks[index], passes * weight
        for (unit, kind), flops in _flops(block).items():
            share = num_warps / 4 if unit == "wgmma" else num_warps
            total.flops[unit, kind] = total.flops.get((unit, kind), 0.0) + flops * share * times
        total.issued += len(block.instructions) * scale * num_warps * times
        total.special += sum(each.opcode.startswith(_SPECIAL) for each in block.instructions) * num_warps * times
        total.loads_clocks += _wait(block) * card.load_clocks * times
        total.phases_clocks += (
            sum(each.opcode.startswith("bar.") for each in block.instructions) * card.shared_clocks * times
        )
    total.passes += max(found.passes.values(), default=0) * weight
    total.unknown |= found.unknown > 0
    for number, touched in found.memory.items():
        held = total.memory.setdefault(names[number] if 0 <= number < len(names) else "", Touched())
        held.read += touched.read * weight
        held.written += touched.written * weight
        held.sectors += touched.sectors * weight


def _issued_per_instruction(code: Code) -> float:
    """Instructions of the cubin for one of the PTX."""
    return sum(body.instructions for body in code.bodies) / max(sum(1 for _ in code.program.instructions), 1)


def _flops(block: Block) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for each in block.instructions:
        if each.matrix is not None:
            found[each.matrix.unit, each.matrix.kind] += each.matrix.flops
    return found


def _wait(block: Block) -> float:
    """Latencies of a load that one pass takes at least: a whole one for a load into registers, a part of one where
    copies are asked for some passes ahead."""
    if any(each.opcode.startswith("ld.global") for each in block.instructions):
        return 1.0
    copies = [each for each in block.instructions if each.opcode.startswith("cp.async.commit")]
    waits = [int(each.sources[0], 0) for each in block.instructions if each.opcode.startswith("cp.async.wait_group")]
    if not waits or not copies:
        return 0.0
    return 1.0 / (1 + min(waits) // len(copies))
