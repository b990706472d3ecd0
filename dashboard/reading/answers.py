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
from archsearch.analysis.objectives import objectives_of
from archsearch.analysis.points import points
from archsearch.analysis.validity import Validity
from archsearch.storage import SearchRecord, Store, TrialQuery

from ..connection import key, store
from ..navigation import state_of

STEPS = 40
"""Points of a curve of hypervolume."""
KEPT = 24
"""Searches of which the answers are kept: more than a page of them lists."""


def answer(search: SearchRecord) -> Answer:
    """The front of a search with all its candidates."""
    opened, state = store(), state_of(search)
    revision = opened.revision(search.id)
    return _answer_now(key(), search.name, revision, state, _search=search, _store=opened)


def values(search: SearchRecord) -> pd.DataFrame:
    """The objectives of a search by trial and seed, on the test split."""
    opened = store()
    names = tuple(objective.metric for objective in objectives_of(search))
    return _values(key(), search.name, opened.revision(search.id), names, _store=opened)


def hypervolume(search: SearchRecord) -> pd.DataFrame:
    """The hypervolume of a search over its candidates, at most at `STEPS` of them; of no objectives there is none."""
    opened = store()
    if not search.objectives:
        return pd.DataFrame(columns=["number", "trial", "hypervolume"])
    return _hypervolume(key(), search.name, opened.revision(search.id), _search=search)


def superseded(search: SearchRecord) -> int:
    """How many trials of a search were measured with source that has changed since."""
    opened = store()
    return _superseded(key(), search.name, opened.revision(search.id), _store=opened)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _answer_now(database: str, name: str, revision: str, state: str, *, _search: SearchRecord, _store: Store) -> Answer:
    """The answer with the state that the search has by now, which is found without reading it again."""
    return replace(_answer(database, name, revision, _store=_store), search=_search, state=state)


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _answer(database: str, name: str, revision: str, *, _store: Store) -> Answer:
    search = _store.search(name)
    return read_answer(_store, name) if search.objectives else _without_objectives(_store, search)


def _without_objectives(opened: Store, search: SearchRecord) -> Answer:
    """The candidates of a search none of whose objectives can be read: no front, as nothing can be compared."""
    found = points(opened.candidates_frame(search.name), opened.values_frame(search.name, (), ()), ())
    return Answer(
        search=search, state=state_of(search), points=found, front=found.iloc[:0], validity=Validity.of(search, None)
    )


@st.cache_resource(show_spinner=False, max_entries=64)
def _superseded(database: str, name: str, revision: str, *, _store: Store) -> int:
    return _store.trial_page(name, TrialQuery(states=("superseded",), limit=1)).total


@st.cache_resource(show_spinner=False, max_entries=KEPT)
def _values(database: str, name: str, revision: str, names: Sequence[str], *, _store: Store) -> pd.DataFrame:
    return _store.values_frame(name, names, ("test",))


@st.cache_resource(show_spinner=False, max_entries=64)
def _hypervolume(database: str, name: str, revision: str, *, _search: SearchRecord) -> pd.DataFrame:
    return hypervolume_over_trials(answer(_search).points, objectives_of(_search), most=STEPS)
