"""The page Searches: every search with its state, progress, best values and hypervolume, refreshed as it runs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from archsearch.storage import SearchRecord

from ..address import query
from ..boundary import part
from ..connection import store
from ..downloads import csv_button
from ..navigation import go, no_search, state_of
from ..queries.searches import alive, best_values, budget_of, listed, people, planned, trained
from ..reading import answers
from ..tables import chosen_row, forget_row
from ..text import plain, shortened

REFRESH_SECONDS = 5
_PAGE = 20
_ARCHIVED = "archived"


def page() -> None:
    """Draws the page."""
    st.title("Searches")
    found = store().searches()
    if not found:
        no_search()
    shown = listed(found)
    running = any(state_of(search) == "running" for search in shown)
    st.caption(
        f"{plain(store().url)} · {len(shown)} {'search' if len(shown) == 1 else 'searches'}, the newest first · "
        "choose a row to see its front (by keyboard: arrow keys, then Shift and Space)"
        + (f" · refreshed every {REFRESH_SECONDS} s" if running else "")
    )
    if len(shown) < len(found):
        st.toggle(f"Archived ones too ({len(found) - len(shown)})", key=_ARCHIVED, bind="query-params")
    part(_listed, REFRESH_SECONDS if running else None)()


def _listed() -> None:
    found = list(reversed(listed(store().searches(), archived=bool(st.session_state.get(_ARCHIVED)))))
    pages = -(-len(found) // _PAGE)
    first = 0
    if pages > 1:
        chosen = st.selectbox("Page", range(1, pages + 1), key="page", bind="query-params", width=120)
        first = _PAGE * (chosen - 1)
    shown = found[first : first + _PAGE]
    table = _table(shown)
    row = chosen_row(table, "searches", columns=_COLUMNS, row_height=40, height="content")
    if row is not None:
        forget_row("searches")
        go("front", query(search=shown[row].name))
    csv_button("Download the list", table.drop(columns="hypervolume"), "searches.csv")
    for search in shown:
        if search.reason:
            st.caption(f"**{plain(shortened(search.name, 80))}**: {plain(search.reason)}")


_COLUMNS = {
    "search": st.column_config.TextColumn(width=140),
    "state": st.column_config.TextColumn(width=85),
    "driver": st.column_config.TextColumn(width=140, help="When it was last heard of, or when the search ended"),
    "trained": st.column_config.ProgressColumn(
        format="percent", width=85, help="Candidates trained, of those that the spec asks for"
    ),
    "drawn": st.column_config.NumberColumn(width=60, help="Candidates that were drawn, trained or not"),
    "superseded": st.column_config.NumberColumn(
        width=85, help="Trials that were measured with source that has changed since: they count no more"
    ),
    "front": st.column_config.NumberColumn(width=55, help="Candidates on the front"),
    "hypervolume": st.column_config.AreaChartColumn(
        width=90, help="What the front dominates, candidate by candidate; a scale for each row"
    ),
    "best": st.column_config.TextColumn("best on the front", width=365, help="Each objective by itself"),
    "budget": st.column_config.TextColumn(width=130),
    "owner": st.column_config.TextColumn(width=90),
    "tags": st.column_config.TextColumn(width=110),
    "note": st.column_config.TextColumn(width=200),
}


def _table(searches: Sequence[SearchRecord]) -> pd.DataFrame:
    table = pd.DataFrame([{**_row(search), **people(search, searches)} for search in searches])
    if not len(table):
        return pd.DataFrame(columns=["search", "hypervolume"])
    return table if table["superseded"].any() else table.drop(columns="superseded")


def _row(search: SearchRecord) -> dict[str, object]:
    state, answer = state_of(search), answers.answer(search)
    count, all_planned = trained(answer), planned(search)
    return {
        "search": search.name,
        "state": state,
        "driver": alive(search, state),
        "trained": min(1.0, count / all_planned) if all_planned else None,
        "drawn": len(answer.points),
        "superseded": answers.superseded(search),
        "front": len(answer.front),
        "hypervolume": answers.hypervolume(search)["hypervolume"].tolist(),
        "best": best_values(answer),
        "budget": budget_of(search),
    }
