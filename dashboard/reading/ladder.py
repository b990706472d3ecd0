"""Reading ladders, kept until one of their rungs has changed."""

from __future__ import annotations

import streamlit as st

from archsearch.analysis.ladder import Ladder
from archsearch.analysis.ladder_reading import belongs_to_ladder, read_ladder
from archsearch.storage import SearchRecord, Store

from ..connection import key, store
from ..navigation import state_of


def ladder(search: SearchRecord) -> Ladder | None:
    """The ladder that a search belongs to, None for one that belongs to none."""
    if not belongs_to_ladder(search):
        return None
    opened = store()
    others = [one for one in opened.searches() if belongs_to_ladder(one)]
    marks = tuple((one.name, opened.revision(one.id), state_of(one)) for one in others)
    return _ladder(key(), search.name, marks, _store=opened)


@st.cache_resource(show_spinner=False, max_entries=16)
def _ladder(database: str, name: str, marks: tuple[tuple[str, str, str], ...], *, _store: Store) -> Ladder:
    return read_ladder(_store, name)
