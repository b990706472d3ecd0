"""CSV: the one way out of a table as text, in which no cell is a formula and none steers a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsearch.printable import printable

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""With these a cell begins that a spreadsheet may run, the last ones where it reads wide letters as narrow ones."""


def csv_bytes(table: pd.DataFrame) -> bytes:
    """`table` as UTF-8 CSV.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, in the heads too; what steers a
    terminal or is not seen is written as an escape. Numbers stay numbers.
    """
    safe = table.map(_inert).rename(columns=_inert)
    return safe.to_csv(index=False).encode(errors="backslashreplace")


def _inert(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    formula = len(cell) > 1 and cell[0] in _FORMULA and not _number(cell)
    return ("'" if formula else "") + printable(cell, lines=False)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
