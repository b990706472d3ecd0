"""Tables: the one way in which pages show a frame, and the one way out of it.

Streamlit's own download of a table writes cells as they are, so that a spreadsheet runs those that begin with ``=``:
`ONE_WAY_OUT` takes it away, and each table has a button of `downloads` below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import streamlit as st

from .address import clicked_row
from .downloads import csv_button
from .text import cell

ONE_WAY_OUT = "client.disableDataExport"
"""Streamlit's setting that takes its own export away from every table."""

MOST_CELL = 400
"""Characters of a cell; the download has the whole text."""

Columns = Mapping[str, Any]


def table(
    frame: pd.DataFrame,
    key: str,
    *,
    file: str = "",
    columns: Columns | None = None,
    height: Literal["auto", "content"] = "auto",
    download: pd.DataFrame | None = None,
) -> None:
    """Draws `frame`, and below it a small button for `download`, else for itself, as `file` (none: no button)."""
    st.dataframe(shown(frame), hide_index=True, key=key, placeholder="", height=height, column_config=columns)
    if file:
        csv_button("Download as CSV", frame if download is None else download, file, small=True)


def chosen_row(
    frame: pd.DataFrame,
    key: str,
    *,
    columns: Columns | None = None,
    row_height: int | None = None,
    height: Literal["auto", "content"] = "auto",
) -> int | None:
    """Draws `frame`, of which a row can be chosen, and returns its number from 0; None for none.

    Whoever leaves the page for it calls `forget_row`, so that the row is not chosen when it comes back.
    """
    event = st.dataframe(
        shown(frame),
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"{key}_{_left(key)}",
        row_height=row_height,
        height=height,
        column_config=columns,
    )
    row = clicked_row(event)
    return row if row is not None and row < len(frame) else None


def forget_row(key: str) -> None:
    """Has the next `chosen_row` of `key` begin without a choice."""
    st.session_state[_name(key)] = _left(key) + 1


def _left(key: str) -> int:
    return int(st.session_state.get(_name(key), 0))


def _name(key: str) -> str:
    return f"{key}_left"


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with every text in one line, cut, and with escapes for what is not seen; numbers stay numbers."""
    told = frame.copy()
    for name, kind in frame.dtypes.items():
        if kind in ("object", "string"):
            told[name] = frame[name].map(_shown)
    return told.rename(columns=lambda name: cell(name, MOST_CELL))


def _shown(value: object) -> object:
    return cell(value, MOST_CELL) if isinstance(value, str) else value
