"""Reading: what pages ask of a search, kept until the search has changed and shared by all viewers.

What is handed out is the shared thing itself, as copies of large frames take long: it is not to be changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from archsearch.analysis import hypervolume_over_trials
from archsearch.analysis.answer import Answer, read_answer
from archsearch.analysis.objectives import metric_name
from archsearch.storage import SearchRecord, Store

from .connection import key, store
from .navigation import state_of

STEPS = 40
"""Points of a curve of hypervolume."""
KEPT = 24
"""Searches of which the answers are kept: more than a page of them lists."""


def answer(search: SearchRecord) -> Answer:
    """The front of a search with all its candidates."""
    opened = store()
    found = _answer(key(), search.name, opened.revision(search.id), _store=opened)
    return replace(found, search=search, state=state_of(search))


def values(search: SearchRecord) -> pd.DataFrame:
    """The objectives of a search by trial and seed, on the test split."""
    opened = store()
    names = tuple(metric_name(objective) for objective in search.objectives)
    return _values(key(), search.name, opened.revision(search.id), names, _store=opened)


def hypervolume(search: SearchRecord) -> pd.DataFrame:
    """The hypervolume of a search over its candidates, at most at `STEPS` of them."""
    opened = store()
    return _hypervolume(key(), search.name, opened.revision(search.id), _search=search)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _answer(database: str, name: str, revision: str, *, _store: Store) -> Answer:
    return read_answer(_store, name)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _values(database: str, name: str, revision: str, names: Sequence[str], *, _store: Store) -> pd.DataFrame:
    return _store.values_frame(name, names, ("test",))


@st.cache_resource(show_spinner=False, max_entries=64)
def _hypervolume(database: str, name: str, revision: str, *, _search: SearchRecord) -> pd.DataFrame:
    return hypervolume_over_trials(answer(_search).points, _search.objectives, most=STEPS)
