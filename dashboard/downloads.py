"""Downloads: tables as CSV, data as JSON and reports as HTML, written only when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import streamlit as st

from archsearch.analysis.csv_text import csv_bytes


def csv_button(
    label: str, table: pd.DataFrame | Callable[[], pd.DataFrame], file_name: str, *, small: bool = False
) -> None:
    """A button that downloads `table`, or what it gives; its cells cannot be taken for formulas by a spreadsheet."""
    st.download_button(
        label,
        lambda: csv_bytes(table() if callable(table) else table),
        file_name=safe_name(file_name),
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
        key=f"download_{file_name}",
        type="tertiary" if small else "secondary",
    )


def html_button(label: str, write: Callable[[], str], file_name: str) -> None:
    """A button that downloads the page that `write` gives."""
    _text_button(label, write, file_name, "text/html")


def json_button(label: str, write: Callable[[], str], file_name: str) -> None:
    """A button that downloads the JSON text that `write` gives."""
    _text_button(label, write, file_name, "application/json")


def _text_button(label: str, write: Callable[[], str], file_name: str, mime: str) -> None:
    st.download_button(
        label,
        lambda: write().encode(),
        file_name=safe_name(file_name),
        mime=mime,
        on_click="ignore",
        icon=":material/download:",
        key=f"download_{file_name}",
    )


def safe_name(text: str) -> str:
    """`text` as the name of a file: letters, digits and ``-_.``, at most 100."""
    stem, dot, suffix = re.sub(r"[^\w.-]+", "-", text).rpartition(".")
    return f"{stem.strip('-.')[: 99 - len(suffix)] or 'search'}{dot}{suffix}"
