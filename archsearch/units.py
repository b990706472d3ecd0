"""Quantities as people write and read them: "18 MiB", "2 GFLOP", "32k"."""

from __future__ import annotations

import re

from archsearch.errors import SpecError

_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_DECIMAL = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_QUANTITY = re.compile(
    r"\s*(?P<number>\d+(?:[_\d]*\d)?(?:\.\d+)?(?:e[+-]?\d+)?)\s*"
    r"(?:(?P<prefix>[kmgtpe])(?P<binary>i?))?(?P<unit>b|bytes?|flops?|)\s*\Z",
    re.IGNORECASE,
)


def parse_quantity(text: str | int | float, *, unit: str) -> float:
    """A number in `unit` ("bytes", "FLOP" or "" for a plain count) from text such as "18 MiB" or "2 GFLOP".

    KiB, MiB ... are powers of 1024; kB, MB ... and all prefixes of FLOP and of counts are powers of 1000.
    """
    if isinstance(text, bool):
        raise SpecError(f"{text!r} is no quantity: write a number with a unit, as {_example(unit)}")
    if isinstance(text, int | float):
        return float(text)
    match = _QUANTITY.match(text)
    if match is None:
        raise SpecError(f'"{text}" is no quantity: write a number with a unit, as {_example(unit)}')
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
    """`value` in `unit` with a prefix that keeps it short: 18874368 bytes is "18 MiB"; 2e9 FLOP is "2 GFLOP"."""
    if unit == "bytes":
        step, names, suffix = 1024.0, ["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B"
    else:
        step, names, suffix = 1000.0, ["", "k", "M", "G", "T", "P", "E"], unit
    power = 0
    while abs(value) >= step and power < len(names) - 1:
        value, power = value / step, power + 1
    number = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{number} {names[power]}{suffix}".strip()
