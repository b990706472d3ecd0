"""Reading evidence: the sampled candidates of a search, kept until the search has changed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from archsearch.analysis.objectives import Objective
from archsearch.storage import SearchRecord

from ..connection import key, store
from ..queries.matters import Evidence, evidence, importance_table


def evidence_of(search: SearchRecord) -> Evidence:
    """What is known of the measured candidates of a search."""
    return _evidence(key(), search.name, store().revision(search.id), _search=search)


def importance_of(search: SearchRecord, objective: Objective) -> pd.DataFrame:
    """The importance of each choice for one objective."""
    return _importance(key(), search.name, store().revision(search.id), objective.name, _of=(search, objective))


@st.cache_resource(show_spinner=False, max_entries=8)
def _evidence(database: str, name: str, revision: str, *, _search: SearchRecord) -> Evidence:
    return evidence(store(), _search)


@st.cache_resource(show_spinner=False, max_entries=32)
def _importance(
    database: str, name: str, revision: str, objective: str, *, _of: tuple[SearchRecord, Objective]
) -> pd.DataFrame:
    search, wanted = _of
    return importance_table(evidence_of(search), wanted)
