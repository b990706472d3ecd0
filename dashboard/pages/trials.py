"""The table of all trials of a search: filtered, ordered and paged by the database."""

from __future__ import annotations

import streamlit as st

from archsearch.analysis.objectives import objectives_of
from archsearch.storage import SearchRecord, TrialQuery
from archsearch.storage.records import TRIAL_KINDS, TRIAL_STATES

from ..address import query
from ..connection import store
from ..downloads import csv_button
from ..navigation import go
from ..option_state import adopt_number, keep
from ..queries import candidates
from ..tables import chosen_row, forget_row

PAGE = 50
MOST_FIND = 500
"""Characters that are looked for; a database refuses to look for very many."""


def all_trials(search: SearchRecord) -> None:
    """Draws the filters, one page of trials, and its download; a row opens the trial."""
    objectives = objectives_of(search)
    asked = _asked([item.metric for item in objectives], [item.name for item in objectives])
    found = store().trial_page(search.name, asked, metrics=[item.metric for item in objectives])
    pages = max(1, -(-found.total // PAGE))
    count, turn = st.columns([0.8, 0.2], vertical_alignment="bottom")
    page = turn.number_input(
        "Page", 1, pages, key=adopt_number("page", pages), on_change=keep, args=("page", 1), disabled=pages == 1
    )
    if page > 1:
        asked = TrialQuery(**{**vars(asked), "offset": PAGE * (page - 1)})
        found = store().trial_page(search.name, asked, metrics=[item.metric for item in objectives])
    count.caption(f"{found.total:,} trials, {PAGE} a page; measured values are those of the validation split")
    if not found.total:
        st.info("No trial is like that: take a filter away.", icon=":material/info:")
        return
    table = candidates.trial_table(found.rows, objectives)
    row = chosen_row(table, "trials", columns={"pattern": st.column_config.TextColumn(width="large")})
    if row is not None:
        forget_row("trials")
        go("architecture", query(search=search.name, trial=int(found.rows["trial"].iloc[row])))
    csv_button("Download this page", table, f"{search.name}-trials-{page}.csv")


def _asked(metrics: list[str], names: list[str]) -> TrialQuery:
    columns = st.columns([0.3, 0.25, 0.2, 0.15, 0.1], vertical_alignment="bottom")
    orders = {"number": "number", "state": "state", "pattern": "pattern", **dict(zip(names, metrics, strict=True))}
    return TrialQuery(
        states=tuple(columns[0].multiselect("State", TRIAL_STATES, key="state", bind="query-params")),
        kinds=tuple(columns[1].multiselect("Kind", TRIAL_KINDS, key="kind", bind="query-params")),
        text=columns[2].text_input("Text in pattern or reason", key="find", bind="query-params")[:MOST_FIND],
        order=orders[columns[3].selectbox("Order", list(orders), key="order", bind="query-params")],
        descending=not columns[4].toggle("rising", key="rising", bind="query-params"),
        limit=PAGE,
    )
