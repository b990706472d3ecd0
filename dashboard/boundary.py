"""The error boundary of a page and its parts: what a viewer is told of a lost database, and a button to try again."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

import streamlit as st

from archsearch.errors import ArchsearchError, StorageError

from .connection import forget
from .text import plain

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")


def guarded(draw: Callable[P, None]) -> Callable[P, None]:
    """`draw`, with an `ArchsearchError` told in its own sentence; a lost database is opened anew by the button.

    Pages draw what others stored and count with what others wrote: whatever else that raises is one sentence too, and
    its traceback is in the log of the server.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except ArchsearchError as error:
            if isinstance(error, StorageError):
                forget()
            _tell(str(error), draw)
        except Exception as error:  # rows and plugins of others: what they make of a page may be anything
            _LOG.exception("a part of a page cannot be drawn")
            _tell(f"This part cannot be drawn: {type(error).__name__}: {error}", draw)

    return drawn


def _tell(text: str, draw: Callable[P, None]) -> None:
    st.error(plain(text), icon=":material/error:")
    st.button("Try again", icon=":material/refresh:", key=f"again_{draw.__module__}.{draw.__qualname__}")


def part(draw: Callable[P, None], every: float | None = None) -> Callable[P, None]:
    """`draw` as a part of a page that is drawn anew without the rest, and by itself `every` so many seconds.

    It has a boundary of its own, because the page's does not stand around it when it is drawn alone.
    """
    fragment: Callable[P, None] = st.fragment(guarded(draw), run_every=every)
    return fragment
