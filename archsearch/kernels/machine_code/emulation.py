"""Emulation: how often one program runs each block of its code, and what it touches of global memory.

Only what decides branches, masks and addresses is computed, of all threads at once; numbers in floating point are not.
So trip counts are those of a launch, masks count, and the sectors of memory that a warp's threads touch are told apart.
A loop's first `EXACT` passes are looked at in full; the later ones touch as much as the last of them. What a program
has loaded into registers once, up to `L1` bytes, it is taken to find in the L1 cache when it loads it again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsearch.errors import ArchsearchError
from archsearch.kernels.machine_code.arithmetic import Value, evaluate
from archsearch.kernels.machine_code.ptx import Block, Instruction, Program

SECTOR = 32
"""Bytes that memory moves at least."""

EXACT = 24
L1 = 128 * 1024
_REDUCE = {"min": np.minimum, "max": np.maximum, "add": np.add, "and": np.bitwise_and, "or": np.bitwise_or}
_REGISTER = re.compile(r"%[a-z]+\d+")
_WORDS = 1 << 16
"""Words of 4 bytes of shared memory, more than any program has."""

_SPAN = 40
"""Bits of an address that are an offset into one argument; those above are its number."""


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """An argument that is a pointer: the bytes behind it, and the integers there where they are known."""

    size: int
    contents: NDArray[Any] | None = None


@dataclass(kw_only=True)
class Touched:
    """Bytes of one argument that one program's threads ask for, and of the sectors of their warps."""

    read: float = 0.0
    written: float = 0.0
    sectors: float = 0.0


@dataclass(kw_only=True)
class Trace:
    """What one program does: passes of each block, memory touched by the argument's number (-1: not known which), and
    branches that depended on what nobody knows."""

    passes: Counter[int] = field(default_factory=Counter)
    memory: dict[int, Touched] = field(default_factory=dict)
    unknown: int = 0


def emulate(
    program: Program,
    arguments: Sequence[int | Buffer],
    place: tuple[int, int, int],
    grid: tuple[int, int, int],
    threads: int,
    *,
    most_passes: int = 1 << 20,
) -> Trace:
    """One program of a launch, `arguments` being those that the code takes, in order.

    Raises `ArchsearchError` for one with a block that runs more than `most_passes` times.
    """
    return _Run(program, arguments, place, grid, threads).trace(most_passes)


class _Run:
    """The registers of one program while it runs."""

    def __init__(
        self,
        program: Program,
        arguments: Sequence[int | Buffer],
        place: tuple[int, int, int],
        grid: tuple[int, int, int],
        threads: int,
    ) -> None:
        self.program, self.arguments, self.threads = program, arguments, threads
        self.given: Mapping[str, Value] = {
            f"[{name}]": (number + 1) << _SPAN if isinstance(value, Buffer) else value
            for number, (name, value) in enumerate(zip(program.parameters, arguments, strict=False))
        }
        self.registers: dict[str, Value] = {
            "%tid.x": np.arange(threads),
            "%ntid.x": threads,
            "%laneid": np.arange(threads) % 32,
        }
        for axis, at, count in zip("xyz", place, grid, strict=True):
            self.registers |= {f"%ctaid.{axis}": at, f"%nctaid.{axis}": count}
        self.found = Trace()
        self.last: dict[int, tuple[int, Touched]] = {}
        self.held: set[int] = set()
        self.shared, self.shared_known = np.zeros(_WORDS, np.int64), np.zeros(_WORDS, bool)

    def trace(self, most_passes: int) -> Trace:
        """From the first block to the last one."""
        index, blocks = 0, self.program.blocks
        while index < len(blocks):
            self.found.passes[index] += 1
            if self.found.passes[index] > most_passes:
                raise ArchsearchError(f"block {blocks[index].label} ran {most_passes} times: its loop does not end")
            index = self._pass(blocks[index], index, exact=self.found.passes[index] <= EXACT)
        return self.found

    def _pass(self, block: Block, index: int, *, exact: bool) -> int:
        """Runs a block; gives the next one's place."""
        if not exact:
            for each in block.instructions:
                if each.is_global:
                    self._repeat(each)
        for each in block.placing if exact else block.steering:
            guard = self._guard(each)
            if each.opcode.startswith("bra"):
                target = self.program.at[each.sources[0]]
                if self._taken(guard, self.program.blocks[index + 1 : target] if target > index else ()):
                    return target
            elif each.opcode.startswith("st.shared"):
                self._store_shared(each, guard)
            elif each.is_global:
                if exact:
                    self._touch(each, guard)
                self._assign(each, self._loaded(each), guard)
            else:
                self._assign(each, self._result(each), guard)
        ends = any(each.opcode == "ret" and not each.guard for each in block.instructions)
        return len(self.program.blocks) if ends else index + 1

    def _guard(self, each: Instruction) -> Value:
        if not each.guard:
            return True
        value = self.registers.get(each.guard)
        if value is None:
            return None
        holds = value != 0
        return holds if not each.negated else ~holds if isinstance(holds, np.ndarray) else not holds

    def _taken(self, guard: Value, skipped: Sequence[Block]) -> bool:
        """Of threads that part ways the first one's; what is not known is not taken, and counted unless nothing of
        account is in the blocks that a taken one would have skipped."""
        if guard is None:
            matters = [each for block in skipped for each in block.instructions if each.is_global or each.matrix]
            self.found.unknown += not skipped or bool(matters)
            return False
        return bool(guard[0]) if isinstance(guard, np.ndarray) else bool(guard)

    def _result(self, each: Instruction) -> Value:
        sources = each.sources
        if each.opcode.startswith("ld.param"):
            return self.given.get(sources[0])
        if each.opcode.startswith(("mov", "cvt")) and sources[0].startswith("{"):
            low, high = (self._value(part.strip()) for part in sources[0].strip("{}").split(","))
            width = 16 if "32" in each.opcode.rpartition(".")[2] else 32
            return None if low is None or high is None else (low & ((1 << width) - 1)) | (high << width)
        if each.opcode.startswith("ld.shared"):
            return self._load_shared(each)
        if len(each.targets) != 1:
            return None
        if each.opcode.startswith("shfl.sync"):
            return self._shuffled(each)
        if each.opcode.startswith("redux.sync"):
            return self._reduced(each)
        return evaluate(each.opcode, [self._value(source) for source in sources])

    def _shuffled(self, each: Instruction) -> Value:
        """What the lanes of a warp hand each other."""
        value, lane = self._value(each.sources[0]), self._value(each.sources[1])
        if value is None or lane is None or not isinstance(value, np.ndarray):
            return value
        own = np.arange(self.threads)
        found = {"bfly": own ^ lane, "idx": (own & ~31) | (lane & 31)}.get(each.opcode.split(".")[2])
        return None if found is None else value[found]

    def _reduced(self, each: Instruction) -> Value:
        """What the lanes of a warp come to together."""
        value, by = self._value(each.sources[0]), _REDUCE.get(each.opcode.split(".")[2])
        if value is None or by is None:
            return None
        lanes = np.broadcast_to(value, self.threads).reshape(-1, 32)
        return np.repeat(by.reduce(lanes, axis=1), 32)

    def _words(self, each: Instruction) -> NDArray[Any] | None:
        """The first word of shared memory that each thread touches; None where that is not known."""
        place = next(source for source in each.sources if source.startswith("["))
        base, _, offset = place.strip("[] ").partition("+")
        value = 0 if base.strip() == "global_smem" else self._value(base.strip())
        if value is None:
            return None
        return np.broadcast_to((np.asarray(value) + int(offset or 0)) // 4 % _WORDS, self.threads)

    def _load_shared(self, each: Instruction) -> Value:
        words = self._words(each)
        if words is None or not each.opcode.endswith("32"):
            return None
        found = [self.shared[words + step] for step in range(len(each.targets))]
        guard = self._guard(each)
        active = np.broadcast_to(True if guard is None else guard, self.threads).astype(bool)
        known = [bool(self.shared_known[(words + step)[active]].all()) for step in range(len(each.targets))]
        plain = [value if sure else None for value, sure in zip(found, known, strict=True)]
        return plain if len(plain) > 1 else plain[0]

    def _store_shared(self, each: Instruction, guard: Value) -> None:
        words = self._words(each)
        if words is None:
            return
        active = np.broadcast_to(True if guard is None else guard, self.threads).astype(bool)
        values = [self._value(part) for part in _REGISTER.findall(each.sources[-1])]
        for step, value in enumerate(values if each.opcode.endswith("32") else [None]):
            at = words[active] + step
            self.shared_known[at] = value is not None and guard is not None
            if value is not None:
                self.shared[at] = np.broadcast_to(value, self.threads)[active]

    def _value(self, source: str) -> Value:
        if source.startswith("%"):
            return self.registers.get(source)
        if source.lstrip("-").isdigit():
            return int(source)
        if source.startswith("0x"):
            return int(source, 16)
        return {"true": True, "false": False, "global_smem": 0}.get(source)

    def _assign(self, each: Instruction, value: Value, guard: Value) -> None:
        for number, target in enumerate(each.targets):
            one = value[number] if isinstance(value, list) else value
            if guard is not True and target in self.registers:
                before = self.registers.get(target)
                if guard is None or one is None or before is None:
                    keeps = guard is not None and not np.any(guard)
                    one = before if keeps else one if guard is not None and np.all(guard) else None
                else:
                    one = np.where(guard, one, before) if isinstance(guard, np.ndarray) else one if guard else before
            self.registers[target] = one

    def _address(self, each: Instruction) -> Value:
        base, _, offset = each.address.strip("[] ").partition("+")
        value = self._value(base.strip())
        return None if value is None else value + int(offset or 0)

    def _touch(self, each: Instruction, guard: Value) -> None:
        """Counts what an instruction touches, and keeps it for the passes that are not looked at."""
        active = np.broadcast_to(True if guard is None else guard, self.threads)
        if each.opcode.startswith("cp.async.c") and len(each.sources) > 3:
            size = self._value(each.sources[3])
            active = active & np.broadcast_to(True if size is None else np.asarray(size) > 0, self.threads)
        number, sectors, count = -1, 0, int(active.sum())
        address = self._address(each)
        if address is None:
            sectors = -(-count * each.width // SECTOR)
        elif count:
            lines = np.broadcast_to(address, self.threads)
            number = int(lines[active][0] >> _SPAN) - 1
            sectors = self._sectors(each, lines // SECTOR, active)
        asked, moved = float(count * each.width), float(sectors * SECTOR)
        touched = Touched(read=asked, sectors=moved) if each.is_load else Touched(written=asked, sectors=moved)
        self.last[id(each)] = number, touched
        self._repeat(each)

    def _sectors(self, each: Instruction, lines: NDArray[Any], active: NDArray[Any]) -> int:
        """Sectors that the warps ask L2 for."""
        warps = np.arange(self.threads) // 32 << 58
        asked = np.unique((warps + lines)[active])
        if not each.opcode.startswith("ld") or len(self.held) * SECTOR >= L1:
            return len(asked)
        new = set(np.unique(lines[active]).tolist())
        again = len(new & self.held)
        self.held |= new
        return len(new) - again

    def _repeat(self, each: Instruction) -> None:
        """Counts an instruction's last touch once more."""
        if id(each) not in self.last:
            return
        number, touched = self.last[id(each)]
        total = self.found.memory.setdefault(number, Touched())
        total.read += touched.read
        total.written += touched.written
        total.sectors += touched.sectors

    def _loaded(self, each: Instruction) -> Value:
        """What a load finds, where the integers there are known."""
        address = self._address(each) if each.opcode.startswith("ld") else None
        if address is None:
            return None
        first = int(np.ravel(address)[0])
        number = (first >> _SPAN) - 1
        held = self.arguments[number] if 0 <= number < len(self.arguments) else None
        if not isinstance(held, Buffer) or held.contents is None:
            return None
        places = (np.asarray(address) & ((1 << _SPAN) - 1)) // held.contents.itemsize
        found = [
            held.contents[np.clip(places + step, 0, len(held.contents) - 1)].astype(np.int64)
            for step in range(max(len(each.targets), 1))
        ]
        plain = [int(value) if value.ndim == 0 else value for value in found]
        return plain if len(plain) > 1 else plain[0]
