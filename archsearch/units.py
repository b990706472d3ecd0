"""Quantities as people write and read them: "18 MiB", "2 GFLOP", "32k"."""

from __future__ import annotations

import math
import re

from archsearch.errors import SpecError

_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
MOST = 1e24
"""The largest quantity that is read: a million exa-anything."""
_LONGEST = 100
_DECIMAL = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_QUANTITY = re.compile(
    r"\s*(?P<number>[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\s*"
    r"(?:(?P<prefix>[kmgtpe])(?P<binary>i?))?(?P<unit>b|bytes?|flops?|)\s*\Z",
    re.IGNORECASE,
)


def parse_quantity(text: str | int | float, *, unit: str) -> float:
    """A number in `unit` ("bytes", "FLOP" or "" for a plain count) from text such as "18 MiB" or "2 GFLOP".

    KiB, MiB ... are powers of 1024; kB, MB ... and all prefixes of FLOP and of counts are powers of 1000. The number is
    finite and at most `MOST` either side of 0; `SpecError` for everything else.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _bounded(text, unit)
    match = _QUANTITY.match(text) if isinstance(text, str) and len(text) <= _LONGEST else None
    if match is None:
        raise SpecError(f"{_quoted(text)} is no quantity: write a number with a unit, as {_example(unit)}")
    return _bounded(_read(match, unit), unit)


def _bounded(value: int | float, unit: str) -> float:
    if -MOST <= value <= MOST:
        return float(value)
    shown = f"{value:g}" if isinstance(value, float) else "this number"
    raise SpecError(f"{shown} is beyond what is counted, {MOST:g}: write a number with a unit, as {_example(unit)}")


def _quoted(text: object) -> str:
    shown = str(text)
    return f'"{shown}"' if len(shown) <= _LONGEST else f"a text of {len(shown)} characters"


def _read(match: re.Match[str], unit: str) -> float:
    text = match.string
    given = match["unit"].lower()
    kind = "bytes" if given.startswith("b") else "FLOP" if given else ""
    if kind and kind != unit:
        raise SpecError(f'"{text}" is in {kind}, but this is counted in {unit or "plain numbers"}: as {_example(unit)}')
    number = float(match["number"].replace("_", ""))
    prefix = (match["prefix"] or "").lower()
    if not prefix:
        return number
    if match["binary"]:
        if prefix not in _BINARY:
            raise SpecError(f'"{text}" has a prefix that is not known: as {_example(unit)}')
        return number * _BINARY[prefix]
    return number * _DECIMAL[prefix]


def _example(unit: str) -> str:
    return {"bytes": '"18 MiB"', "FLOP": '"2 GFLOP"'}.get(unit, '"1.5 M"')


def format_quantity(value: float, *, unit: str, digits: int = 3) -> str:
    """`value` in `unit` with a prefix that keeps it short: 18874368 bytes is "18 MiB"; 2e9 FLOP is "2 GFLOP".

    A value that is not finite is said in words.
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
    if unit == "bytes":
        step, names, suffix = 1024.0, ["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B"
    else:
        step, names, suffix = 1000.0, ["", "k", "M", "G", "T", "P", "E"], unit
    power = 0
    while abs(value) >= step and power < len(names) - 1:
        value, power = value / step, power + 1
    number = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    return f"{number} {names[power]}{suffix}".strip()
