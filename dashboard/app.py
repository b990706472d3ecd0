"""The entry script that Streamlit runs: the pages, in the order of the navigation, each behind one error boundary.

A page is a module of ``pages/`` with a function ``page()`` that takes nothing. Inside it:

- its store is `connection.store()` (read-only, shared by all viewers), its mixers `connection.registry()`;
- the search that is looked at is `navigation.chosen_search()`, which also draws the choice;
- its URL state: a widget with ``key=`` and ``bind="query-params"`` keeps itself in the URL, under its key and by what
  it shows; `option_state` keeps a choice by its option's key; what no widget holds (the trials that are looked at) is
  read and written by `address`; links are `navigation.link` and `navigation.go`;
- its error boundary is here: whatever `ArchsearchError` a page raises becomes its sentence and a button to try again;
  what is drawn anew without the rest of the page is a `boundary.part`, which has one of its own.
"""

from __future__ import annotations

import streamlit as st

__package__ = "archsearch_dashboard"  # Streamlit runs this file as a script, which belongs to no package by itself

from .boundary import guarded
from .command_line import cluster
from .login import admitted
from .navigation import remember_pages
from .pages import architecture, compare, comparison, front, jobs, ladder, matters, mixers, searches
from .remarks import remarks

_SPACE = (
    "<style>.stMainBlockContainer { padding: 4.2rem 3rem 3rem } h1 { font-size: 1.9rem !important } "
    "h2 { font-size: 1.5rem !important } h3 { font-size: 1.2rem !important } "
    ".parcoords .axis .domain, .parcoords .axis .tick line { stroke: currentColor !important } "
    ".parcoords .axis .tick text { fill: currentColor !important; "
    "text-shadow: 0 0 2px light-dark(#fff, #000), 0 0 3px light-dark(#fff, #000) !important }</style>"
)
"""The page in full width: beside a chart 80 pixels of margin are too many. Headings are smaller than the title. Axes
of parallel coordinates, which plotly draws in black with a white halo, are of the theme's colours."""


_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#0072B2" stroke-width="2.5">'
    '<path d="M3 3v18h18M7 17v-4h5V8h7"/></svg>'
)
"""Drawn here: one of Streamlit's own icons would be fetched from elsewhere by every viewer's browser."""


def main(start: str = "searches") -> None:
    """Draws the page that the URL names, or `start`."""
    st.set_page_config(page_title="archsearch", page_icon=_ICON, layout="wide")
    listed = [
        ("searches", searches.page, "Searches", ":material/list:"),
        ("front", front.page, "Front", ":material/show_chart:"),
        ("architecture", architecture.page, "Architecture", ":material/layers:"),
        ("compare", compare.page, "Compare", ":material/compare_arrows:"),
        ("ladder", ladder.page, "Ladder", ":material/stairs:"),
        ("comparison", comparison.page, "Comparison", ":material/balance:"),
        ("matters", matters.page, "What matters", ":material/tune:"),
        ("mixers", mixers.page, "Mixers", ":material/category:"),
    ]
    if cluster():
        listed.append(("jobs", jobs.page, "Jobs", ":material/send:"))
    pages = {
        slug: st.Page(guarded(draw), title=title, icon=icon, url_path=slug, default=slug == start)
        for slug, draw, title, icon in listed
    }
    remember_pages(pages)
    st.html(_SPACE)
    chosen = st.navigation(list(pages.values()), position="top")
    if admitted():
        above = st.container()
        chosen.run()
        with above:
            remarks()


if __name__ == "__main__":
    main()
