"""Downloads: tables as CSV and reports as HTML, written only when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import streamlit as st

from archsearch.printable import printable

_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""With these a cell begins that a spreadsheet may run, the last ones where it reads wide letters as narrow ones."""


def csv_button(label: str, table: pd.DataFrame, file_name: str, *, small: bool = False) -> None:
    """A button that downloads `table`; its cells cannot be taken for formulas by a spreadsheet."""
    st.download_button(
        label, lambda: csv_bytes(table), file_name=safe_name(file_name), mime="text/csv", on_click="ignore",
        icon=":material/download:", key=f"download_{file_name}", type="tertiary" if small else "secondary",
    )  # fmt: skip


def html_button(label: str, write: Callable[[], str], file_name: str) -> None:
    """A button that downloads the page that `write` gives."""
    st.download_button(
        label, lambda: write().encode(), file_name=safe_name(file_name), mime="text/html", on_click="ignore",
        icon=":material/download:", key=f"download_{file_name}",
    )  # fmt: skip


def safe_name(text: str) -> str:
    """`text` as the name of a file: letters, digits and ``-_.``, at most 100."""
    stem, dot, suffix = re.sub(r"[^\w.-]+", "-", text).rpartition(".")
    return f"{stem.strip('-.')[: 99 - len(suffix)] or 'search'}{dot}{suffix}"


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
