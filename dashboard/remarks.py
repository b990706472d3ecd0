"""Remarks: what of the database is left out or cut, told once above the page."""

from __future__ import annotations

import streamlit as st

from archsearch.errors import ArchsearchError

from .connection import store
from .text import plain

MOST = 20
"""Remarks that are told in full; the rest is counted."""


def remarks() -> None:
    """Draws one line that opens into the remarks on what was read so far; nothing where there is none."""
    try:
        found = list(dict.fromkeys(store().remarks()))
    except ArchsearchError:  # a database that cannot be opened is told by the page
        return
    if not found:
        return
    counted = f"{len(found):,} row{'s' if len(found) != 1 else ''}"
    with st.expander(f"Not all of this database can be read: {counted} left out or cut", icon=":material/warning:"):
        for remark in found[:MOST]:
            st.markdown(plain(remark))
        if len(found) > MOST:
            st.caption(f"and {len(found) - MOST:,} more")
