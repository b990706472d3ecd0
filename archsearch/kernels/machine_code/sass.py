"""SASS: what a cubin is made of, by the loops that it stands in, as nvdisasm prints it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

_LABEL = re.compile(r"^(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.x]*)\s*([^;]*);")
_TARGET = re.compile(r"\(?(\.L_x_\d+)\)?")
_WARP = re.compile(r"[A-Z]MMA\.(?:SP\.)?(16|8)(8|16)(\d+)\b")
_GROUP = re.compile(r"[A-Z]GMMA\.(\d+)x(\d+)x(\d+)")
_BITS = re.compile(r"\.(U8|S8|U16|S16|64|128)\b")
_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
_LOADS, _STORES, _SPILLS = ("LDG", "LDGSTS", "LD"), ("STG", "ST", "RED", "ATOM", "ATOMG"), ("LDL", "STL")
_TENSOR_COPIES = ("UTMALDG", "UTMASTG", "UTMAREDG", "UBLKCP")


class Body(BaseModel):
    """The instructions of one loop but those of loops inside of it; ``depth`` 0 is what stands in none.

    ``flops`` of matrix instructions, ``loaded`` and ``stored`` bytes of global memory are of one pass of one program,
    no thread being masked; ``matrix`` counts the instructions by name. Copies by a tensor map have no width in the
    code: they are counted in ``copies``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int
    instructions: int = 0
    flops: int = 0
    loaded: int = 0
    stored: int = 0
    spilled: int = 0
    copies: int = 0
    matrix: dict[str, int] = {}


@dataclass(frozen=True)
class _Line:
    opcode: str
    operands: str


def disassemble(cubin: bytes) -> str:
    """The text of a cubin, by the nvdisasm that comes with Triton."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = str(triton.knobs.nvidia.nvdisasm.path)
        return subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout


def bodies(text: str, num_warps: int) -> list[Body]:
    """The loops in the order of their first instruction, what stands in none first."""
    lines, labels = _read(text)
    end = max((index for index, line in enumerate(lines) if line.opcode == "EXIT"), default=len(lines))
    loops = sorted(_loops(lines, labels, end), key=lambda loop: (loop[0], -loop[1]))
    inside: list[list[_Line]] = [[] for _ in range(len(loops) + 1)]
    for index, line in enumerate(lines[: end + 1]):
        holders = [number for number, (first, last) in enumerate(loops, 1) if first <= index <= last]
        inside[max(holders, key=lambda number: loops[number - 1][0]) if holders else 0].append(line)
    depths = [0] + [sum(a <= first and last <= b for a, b in loops) for first, last in loops]
    return [_body(found, depth, num_warps) for found, depth in zip(inside, depths, strict=True)]


def _read(text: str) -> tuple[list[_Line], dict[str, int]]:
    """Instructions, and at which of them each label stands."""
    lines: list[_Line] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(lines)
        elif found := _INSTRUCTION.match(line):
            lines.append(_Line(found[1], found[2].strip()))
    return lines, labels


def _loops(lines: Sequence[_Line], labels: dict[str, int], end: int) -> Iterator[tuple[int, int]]:
    """First and last instruction of each loop: from where a branch goes back to, to the last branch that does."""
    last: dict[int, int] = {}
    for index, line in enumerate(lines[: end + 1]):
        target = _TARGET.search(line.operands) if line.opcode.startswith("BRA") else None
        if target and target[1] in labels and labels[target[1]] <= index:
            last[labels[target[1]]] = index
    yield from last.items()


def _body(lines: Sequence[_Line], depth: int, num_warps: int) -> Body:
    flops = loaded = stored = spilled = copies = 0
    matrix: dict[str, int] = {}
    for line in lines:
        name = line.opcode.partition(".")[0]
        done = matrix_flops(line.opcode)
        if done:
            matrix[line.opcode] = matrix.get(line.opcode, 0) + 1
            flops += done * num_warps // (4 if "GMMA" in name else 1)
        width = _width(line.opcode) * 32 * num_warps
        loaded += width * (name in _LOADS)
        stored += width * (name in _STORES)
        spilled += width * (name in _SPILLS)
        copies += name in _TENSOR_COPIES
    return Body(
        depth=depth,
        instructions=sum(line.opcode != "NOP" for line in lines),
        flops=flops,
        loaded=loaded,
        stored=stored,
        spilled=spilled,
        copies=copies,
        matrix=matrix,
    )


def matrix_flops(opcode: str) -> int:
    """FLOPs of a matrix instruction, of a warp (HMMA.16816: 16 x 8 x 16) or of four of them (HGMMA.64x64x16), two a
    multiply-add; 0 for any other."""
    found = _GROUP.match(opcode) or _WARP.match(opcode)
    return 0 if found is None else 2 * int(found[1]) * int(found[2]) * int(found[3])


def _width(opcode: str) -> int:
    """Bytes a thread."""
    found = _BITS.search(opcode)
    return 4 if found is None else _BYTES[found[1]]
