"""Reading noise: what seeds alone make in a search's metrics, kept until the search has changed."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from archsearch.analysis.differences import SeedNoise
from archsearch.storage import SearchRecord, Store

from ..connection import key, store
from ..queries.compare import noise_of


def noises(search: SearchRecord, names: tuple[str, ...]) -> Mapping[str, SeedNoise]:
    """The noise of each of some stored metrics on the test split, pooled over the search's trials."""
    opened = store()
    return _noises(key(), search.name, opened.revision(search.id), names, _store=opened)


@st.cache_resource(show_spinner=False, max_entries=16)
def _noises(
    database: str, name: str, revision: str, names: tuple[str, ...], *, _store: Store
) -> Mapping[str, SeedNoise]:
    values = _store.values_frame(name, names, ("test",))
    return {metric: noise_of(values[values["name"] == metric]) for metric in names}
