"""The error boundary of a page: what a viewer is told when a database is lost, and a button to try again."""

from __future__ import annotations

import functools
from collections.abc import Callable

import streamlit as st

from archsearch.errors import ArchsearchError, StorageError

from .connection import forget
from .text import plain


def guarded(draw: Callable[[], None]) -> Callable[[], None]:
    """`draw`, with an `ArchsearchError` told in its own sentence; a lost database is opened anew by the button."""

    @functools.wraps(draw)
    def drawn() -> None:
        try:
            draw()
        except ArchsearchError as error:
            if isinstance(error, StorageError):
                forget()
            st.error(plain(str(error)), icon=":material/error:")
            st.button("Try again", icon=":material/refresh:")

    return drawn
