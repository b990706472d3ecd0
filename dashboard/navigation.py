"""Navigation: links between pages, and the choice of the search that a page looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import streamlit as st
from streamlit.navigation.page import Page

from archsearch.storage import SearchRecord

from .address import SEARCH, TRIAL, Query
from .connection import store
from .queries.searches import listed
from .text import cell, plain, shortened

_PAGES, _SEARCH = "_pages", "_search"


def remember_pages(pages: Mapping[str, Page]) -> None:
    """Keeps the pages of this run for `go` and `link`."""
    st.session_state[_PAGES] = pages


def go(slug: str, query: Query) -> None:
    """Leaves for another page; ``query`` is `address.query`'s."""
    st.switch_page(st.session_state[_PAGES][slug], query_params=query)


def link(slug: str, query: Query, label: str, icon: str | None = None) -> None:
    """A link to another page; ``label`` is text, not Markdown."""
    st.page_link(st.session_state[_PAGES][slug], label=plain(label), icon=icon, query_params=query)


def chosen_search() -> SearchRecord:
    """The search that this view is of: the URL's, else the one looked at before, else the newest.

    Draws the choice where it is called and keeps it in the URL. Without any search the page ends with what to do.
    """
    found = store().searches()
    if not found:
        no_search()
    wanted = st.query_params.get(SEARCH) or st.session_state.get(_SEARCH)
    names = [search.name for search in reversed(listed(found, wanted=wanted) or found)]
    if wanted not in names:
        if SEARCH in st.query_params:
            st.warning(
                f"There is no search “{plain(shortened(str(wanted), 200))}” in this database: the newest is shown."
            )
        wanted = names[0]
    st.session_state["search_choice"] = wanted
    st.selectbox(
        "Search", names, key="search_choice", format_func=lambda name: cell(name, 80), on_change=_choose, width=420
    )
    st.session_state[_SEARCH] = wanted
    if st.query_params.get(SEARCH) != wanted:
        st.query_params[SEARCH] = wanted
    return store().search(wanted)


def state_of(search: SearchRecord) -> str:
    """The state now: a running search without a heartbeat is interrupted."""
    return search.state_now()


def no_search() -> NoReturn:
    """Says that the database is empty, and ends the page."""
    st.info(f"{plain(store().url)} holds no search yet. A search is made by:", icon=":material/info:")
    st.code("archsearch run examples/quickstart.toml", language="sh")
    st.stop()


def _choose() -> None:
    """Keeps the choice in the URL; a trial of the search before has no place there."""
    st.query_params.pop(TRIAL, None)
    st.query_params[SEARCH] = st.session_state["search_choice"]
