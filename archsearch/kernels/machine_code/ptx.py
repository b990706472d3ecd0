"""PTX: the instructions of a kernel by block, and which of them decide where a program goes and what it touches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+[^,)]*?(\w+_param_\d+)")
_GUARD = re.compile(r"@(!?)(%\w+)\s+(.*)", re.DOTALL)
_BRANCH = re.compile(r"(@!?%\w+\s+)?bra\b")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_REGISTER = re.compile(r"%[a-z]+\d+")
_MATRIX = re.compile(r"(wgmma|mma).*?\.m(\d+)n(\d+)k(\d+)\.(.*)")
_WIDTH = re.compile(r"(?:\.v(\d))?\.[a-z]+(\d+)$")
_OPAQUE = re.compile(r"\.b?f\d+(x2)?$|mma|ldmatrix|\.b?f\d+\.")
_NO_RESULT = (
    "st.",
    "red.",
    "bra",
    "ret",
    "bar.",
    "cp.",
    "wgmma.fence",
    "wgmma.commit",
    "wgmma.wait",
    "fence",
    "membar",
)


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction; it runs where the register `guard` is true (false where `negated`), always if that is empty."""

    opcode: str
    guard: str = ""
    negated: bool = False
    targets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @cached_property
    def reads(self) -> frozenset[str]:
        """Registers that it depends on."""
        return frozenset(_REGISTER.findall(" ".join((self.guard, *self.sources))))

    @cached_property
    def address(self) -> str:
        """Where it touches global memory, as written; empty where it does not."""
        if not self.is_global:
            return ""
        places = [source for source in self.sources if source.startswith("[")]
        return places[-1]

    @property
    def is_global(self) -> bool:
        """Whether it reads or writes global memory."""
        return ".global" in self.opcode and self.opcode.partition(".")[0] in ("ld", "st", "red", "atom", "cp")

    @property
    def is_load(self) -> bool:
        """Whether what it touches is read."""
        return self.opcode.startswith(("ld", "cp"))

    @cached_property
    def width(self) -> int:
        """Bytes that one thread touches, when it is not masked."""
        if self.opcode.startswith("cp."):
            return int(self.sources[2], 0)
        found = _WIDTH.search(self.opcode)
        return 0 if found is None else int(found[1] or 1) * int(found[2]) // 8

    @cached_property
    def matrix(self) -> Matrix | None:
        """The matrix product that it is, if it is one."""
        found = _MATRIX.match(self.opcode)
        if found is None:
            return None
        sizes = int(found[2]) * int(found[3]) * int(found[4])
        types = found[5].split(".")
        kind = next((kind for kind in ("bf16", "tf32", "f16", "e4m3", "e5m2", "s8") if kind in types[1:]), "f64")
        return Matrix(unit=found[1], kind=kind, flops=2 * sizes)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix instruction: ``unit`` "mma" is of one warp, "wgmma" of four; the operands' type; FLOPs."""

    unit: str
    kind: str
    flops: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """Instructions that run one after another; only branches leave it. Of all of them, those that branches depend on
    (`steering`), and those that masks and addresses of global memory depend on as well (`placing`)."""

    label: str
    instructions: tuple[Instruction, ...]
    steering: tuple[Instruction, ...] = ()
    placing: tuple[Instruction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Program:
    """The code of one kernel: its parameters by name, in order, and its blocks."""

    parameters: tuple[str, ...]
    blocks: tuple[Block, ...]

    @cached_property
    def at(self) -> Mapping[str, int]:
        """The place of each labelled block."""
        return {block.label: index for index, block in enumerate(self.blocks) if block.label}

    @property
    def instructions(self) -> Iterable[Instruction]:
        """Of all blocks."""
        return (each for block in self.blocks for each in block.instructions)


def parse(text: str) -> Program:
    """The program of a PTX file with one kernel, as Triton writes them."""
    head, _, body = _COMMENT.sub("", text).partition(".visible .entry")[2].partition(")")
    parameters = tuple(_PARAMETER.findall(head))
    blocks = [(label, _instructions(lines)) for label, lines in _blocks(body)]
    writers: dict[str, list[Instruction]] = defaultdict(list)
    for _, instructions in blocks:
        for each in instructions:
            for target in each.targets:
                writers[target].append(each)
    branches = [each for _, found in blocks for each in found if each.opcode.startswith("bra")]
    memory = [each for _, found in blocks for each in found if each.is_global]
    writes = [each for _, found in blocks for each in found if each.opcode.startswith("st.shared")]
    steering = _slice(branches, writers, writes)
    placing = steering | _slice(memory, writers, writes)
    return Program(
        parameters=parameters,
        blocks=tuple(
            Block(
                label=label,
                instructions=tuple(found),
                steering=tuple(each for each in found if id(each) in steering),
                placing=tuple(each for each in found if id(each) in placing),
            )
            for label, found in blocks
        ),
    )


def _blocks(body: str) -> Iterable[tuple[str, str]]:
    """Label and text of each block: up to the next label, or to a branch."""
    label = ""
    lines: list[str] = []
    for line in body.splitlines():
        bare = line.strip()
        if bare.startswith("$L__BB") and bare.endswith(":"):
            yield label, "\n".join(lines)
            label, lines = bare[:-1], []
        elif bare and not bare.startswith((".", "$")):
            lines.append(bare)
            if _BRANCH.match(bare):
                yield label, "\n".join(lines)
                label, lines = "", []
    yield label, "\n".join(lines)


def _instructions(text: str) -> list[Instruction]:
    statements = (statement.strip().lstrip("{}").strip() for statement in text.split(";"))
    return [_instruction(statement) for statement in statements if statement and not statement.startswith(".")]


def _instruction(statement: str) -> Instruction:
    guarded = _GUARD.match(statement)
    negated, guard, rest = (guarded[1] == "!", guarded[2], guarded[3]) if guarded else (False, "", statement)
    opcode, _, tail = rest.partition(" ") if " " in rest.partition("\t")[0] else rest.partition("\t")
    operands = _OPERAND.findall(tail)
    has_result = bool(operands) and not opcode.startswith(_NO_RESULT)
    targets = tuple(_REGISTER.findall(operands[0])) if has_result else ()
    sources = tuple(operands[1:] if has_result else operands)
    return Instruction(opcode=opcode.strip(), guard=guard, negated=negated, targets=targets, sources=sources)


def _slice(
    roots: Iterable[Instruction], writers: Mapping[str, list[Instruction]], writes: Iterable[Instruction]
) -> set[int]:
    """Ids of the roots, and of what the guards, the addresses and the branches among them depend on, `writes` to shared
    memory where something is read from it. What floating point depends on is not followed."""
    found: set[int] = set()
    waiting: list[str] = []
    for each in roots:
        found.add(id(each))
        waiting += _REGISTER.findall(" ".join((each.guard, each.address, *_masking(each))))
    seen: set[str] = set()
    while waiting:
        register = waiting.pop()
        if register in seen:
            continue
        seen.add(register)
        for writer in writers.get(register, ()):
            found.add(id(writer))
            waiting.extend([writer.guard] if _OPAQUE.search(writer.opcode) else writer.reads)
            if writer.opcode.startswith("ld.shared"):
                found.update(map(id, writes))
                waiting.extend(read for write in writes for read in write.reads)
                writes = ()
    return found


def _masking(each: Instruction) -> tuple[str, ...]:
    """The operand of an asynchronous copy that says how many bytes are read."""
    return each.sources[3:4] if each.opcode.startswith("cp.async.c") else ()
