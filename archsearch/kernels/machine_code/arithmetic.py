"""Arithmetic of PTX on integers and predicates, of one program's threads at once.

A value is a number where all threads have the same, an array with one for each thread, or None where it is not known:
what depends on floating point, on shared memory, or on memory whose contents nobody has. Numbers are signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any
"""int, bool, an array of either, or None."""

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lo": lambda a, b: a < b,
    "ls": lambda a, b: a <= b,
    "hi": lambda a, b: a > b,
    "hs": lambda a, b: a >= b,
}


def evaluate(opcode: str, values: list[Value]) -> Value:
    """The result of an instruction; None where it is not known."""
    name, *modifiers = opcode.split(".")
    kind = modifiers[-1] if modifiers else ""
    if kind == "pred":
        return _logic(name, values)
    if name == "selp":
        return _select(*values)
    if any(value is None for value in values):
        return None
    if name == "setp":
        return _compare(modifiers, kind, values)
    if kind[:1] == "f" or kind.startswith("bf") or name not in _OPERATIONS:
        return None
    if name == "cvt" and "f" in modifiers[-2][:2]:
        return None
    seen = [_unsigned(value, kind) for value in values[:2]] + values[2:]  # what is added to a wide product is wide
    found = _OPERATIONS[name](*seen, modifiers=modifiers, source=kind)
    kind = modifiers[-2] if name == "cvt" else kind
    return wrapped(found, bits_of(kind) * (2 if "wide" in modifiers else 1))


def bits_of(kind: str) -> int:
    """Of a type such as "u32"."""
    digits = kind.lstrip("busf")
    return int(digits) if digits.isdigit() else 32


def wrapped(value: Value, bits: int) -> Value:
    """The signed number that the lowest bits are."""
    if bits >= 64:
        if isinstance(value, np.ndarray):
            return value
        bits = 64
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


def _unsigned(value: Value, kind: str) -> Value:
    """An operand as an instruction of that type sees it."""
    return value & 0xFFFFFFFF if kind == "u32" else value & 0xFFFF if kind == "u16" else value


def _compare(modifiers: list[str], kind: str, values: list[Value]) -> Value:
    if kind[0] == "f" or kind.startswith("bf"):
        return None
    a, b = (_unsigned(value, kind) for value in values[:2])
    found = _COMPARE[modifiers[0]](a, b)
    if len(values) == 3:
        found = _logic(modifiers[1], [found, values[2]])
    return found


def _logic(name: str, values: list[Value]) -> Value:
    if name == "not":
        a = values[0]
        return None if a is None else ~a if isinstance(a, np.ndarray) else not a
    if name == "mov":
        return values[0]
    a, b = values
    if a is None or b is None:
        known = b if a is None else a
        decided = known is not None and not isinstance(known, np.ndarray) and bool(known) == (name == "or")
        return known if decided and name != "xor" else None
    return a & b if name == "and" else a | b if name == "or" else a ^ b


def _select(a: Value, b: Value, chosen: Value) -> Value:
    if chosen is None:
        return None
    if not isinstance(chosen, np.ndarray):
        return a if chosen else b
    return None if a is None or b is None else np.where(chosen, a, b)


def _quotient(a: Value, b: Value) -> Value:
    """Rounded to zero, as the machine does; of a division by zero anything."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        whole = np.abs(a) // np.maximum(np.abs(b), 1)
        return np.where((a < 0) != (b < 0), -whole, whole)
    whole = abs(a) // max(abs(b), 1)
    return -whole if (a < 0) != (b < 0) else whole


def _least(a: Value, b: Value) -> Value:
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def _largest(a: Value, b: Value) -> Value:
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def _shift_right(a: Value, by: Value, kind: str) -> Value:
    logical = kind[0] != "s" and bits_of(kind) <= 32
    return (a & 0xFFFFFFFF if logical else a) >> _least(by, 63)


def _field(a: Value, start: Value, length: Value, kind: str) -> Value:
    part = ((a & 0xFFFFFFFF) >> start) & ((1 << length) - 1)
    return wrapped(part, length) if kind[0] == "s" else part


def _converted(a: Value, source: str) -> Value:
    bits = bits_of(source)
    return a & ((1 << bits) - 1) if source[0] in "ub" and bits < 64 else wrapped(a, bits)


def _product(a: Value, b: Value, modifiers: list[str]) -> Value:
    return (a * b) >> bits_of(modifiers[-1]) if "hi" in modifiers else a * b


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "mov": lambda a, **_: a,
    "add": lambda a, b, **_: a + b,
    "sub": lambda a, b, **_: a - b,
    "mul": lambda a, b, modifiers, **_: _product(a, b, modifiers),
    "mad": lambda a, b, c, modifiers, **_: _product(a, b, modifiers) + c,
    "and": lambda a, b, **_: a & b,
    "or": lambda a, b, **_: a | b,
    "xor": lambda a, b, **_: a ^ b,
    "not": lambda a, **_: ~a,
    "neg": lambda a, **_: -a,
    "abs": lambda a, **_: abs(a),
    "min": lambda a, b, modifiers, **_: _largest(_least(a, b), 0) if "relu" in modifiers else _least(a, b),
    "max": lambda a, b, **_: _largest(a, b),
    "shl": lambda a, b, **_: a << _least(b, 63),
    "shr": lambda a, b, source, **_: _shift_right(a, b, source),
    "div": lambda a, b, **_: _quotient(a, b),
    "rem": lambda a, b, **_: a - _quotient(a, b) * b,
    "bfe": lambda a, start, length, source, **_: _field(a, start, length, source),
    "cvt": lambda a, source, **_: _converted(a, source),
}
