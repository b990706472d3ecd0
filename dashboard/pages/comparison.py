"""The page that holds every architecture of a search against one of them, task by task, with the noise of seeds."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from archsearch.analysis.comparison import Comparison
from archsearch.analysis.sweep import COSTS, STATE, Sweep
from archsearch.analysis.sweep_caveats import caveats as sweep_caveats
from archsearch.storage import SearchRecord

from ..boundary import guarded, part
from ..connection import registry
from ..downloads import csv_button, json_button
from ..figures.comparison import forest
from ..figures.sweep import recall_curves
from ..navigation import chosen_search, state_of
from ..option_state import adopt, keep
from ..queries.comparison import (
    baselines,
    caveats,
    comparison_table,
    every_task,
    families_of,
    summary,
    told,
    waiting_table,
)
from ..reading.answers import answer
from ..reading.comparison import comparison, sweep
from ..tables import table
from ..text import capitalised, cell, plain

MOST = 200
"""Candidates of a search that is compared as a whole: of more, some differ by chance, and the table has no reader."""

REFRESH_SECONDS = 5
_COLUMNS = {
    "architecture": st.column_config.TextColumn(width=190),
    "family": st.column_config.TextColumn(width=62),
    "score": st.column_config.NumberColumn(format="%.4f", width=62, help="Mean over seeds on test"),
    "error": st.column_config.NumberColumn("±", format="%.4f", width=62, help="Standard error over seeds"),
    "seeds": st.column_config.NumberColumn(width=52),
    "difference": st.column_config.NumberColumn(format="%+.4f", width=80, help="From the baseline, of the same seeds"),
    "interval": st.column_config.TextColumn("95% interval", width=125, help="Of this row alone, not corrected"),
    "verdict": st.column_config.TextColumn(width=92),
    "rate": st.column_config.NumberColumn(format="%g", width=58, help="Learning rate that is best on validation"),
    "rates": st.column_config.LineChartColumn(
        "over rates", width=78, help="Validation against the learning rate, the lowest first; a scale for each row"
    ),
    "notes": st.column_config.TextColumn(width=250),
}


def page() -> None:
    """Draws the comparison of the search that the URL names."""
    st.title("Comparison")
    search = chosen_search()
    count = len(answer(search).points)
    if count > MOST:
        st.info(
            plain(
                f"{search.name} has {count:,} candidates, and at most {MOST} are held against one of them here: of so "
                "many, some differ by chance. The page Compare puts six of them side by side; "
                "`archsearch compare` gives the whole table."
            )
        )
        return
    first = comparison(search, None)
    if isinstance(first, str):
        st.info(plain(f"Nothing can be compared yet: {first}."))
        return
    if not first.tasks:
        st.info("None of the measurements of this search can be read, so that nothing can be compared.")
        return
    part(_drawn, REFRESH_SECONDS if state_of(search) == "running" else None)(search, first)


def _drawn(search: SearchRecord, first: Comparison) -> None:
    left, right = st.columns(2)
    with left:
        found = _held_against(search, first)
    if found is None or not found.tasks:
        return
    with right:
        task = _task(found)
    families = families_of(found, registry())
    st.markdown(plain(summary(found, task)))
    guarded(_differences)(found, task, families, frozenset(answer(search).not_exercised["digest"]))
    guarded(_sweep)(search)
    guarded(_waiting)(found)


def _held_against(search: SearchRecord, first: Comparison) -> Comparison | None:
    """The comparison with the baseline that is chosen."""
    offered = baselines(first)
    digest = st.selectbox(
        "Held against",
        list(offered),
        format_func=lambda one: cell(offered[one], 110),
        key=adopt("baseline", list(offered), first.baseline.digest),
        on_change=keep,
        args=("baseline", first.baseline.digest),
        help="Choose it before you look: the correction knows nothing of baselines that were tried before.",
    )
    found = first if digest == first.baseline.digest else comparison(search, digest)
    if isinstance(found, str):
        st.info(plain(f"Nothing can be compared with this one: {found}."))
        return None
    return found


def _task(found: Comparison) -> str:
    tasks = list(found.tasks)
    if len(tasks) == 1:
        return tasks[0]
    chosen = st.selectbox(
        "Task",
        tasks,
        format_func=lambda task: cell(task, 110),
        key=adopt("task", tasks, tasks[0]),
        on_change=keep,
        args=("task", tasks[0]),
    )
    return chosen or tasks[0]


def _differences(found: Comparison, task: str, families: dict[str, str], flat: frozenset[str]) -> None:
    score = found.ordered(task)[0].scores[task]
    frame = comparison_table(found, task, families, flat)
    if frame["difference"].notna().any():
        st.plotly_chart(
            forest(frame, score.metric, more_is_better=score.direction == "maximize"),
            key="forest",
            alt="Each architecture's difference from the baseline as a mark with its 95% interval, the best above",
        )
        st.caption("A family has its colour and mark; hollow and grey is within noise.")
    table(told(frame), "comparison_table", columns=_columns(frame), height="content" if len(frame) <= 60 else "auto")
    st.caption(plain(" ".join(caveats(found))))
    with st.container(horizontal=True):
        csv_button("All tasks as CSV", lambda: every_task(found), f"{found.search}-comparison.csv")
        json_button(
            "As JSON", lambda: json.dumps(_finite(found.to_json()), indent=2), f"{found.search}-comparison.json"
        )


def _columns(frame: pd.DataFrame) -> dict[str, object]:
    """Costs by their measure alone where it is taken at one context."""
    costs = [str(name) for name in frame.columns if "@" in str(name)]
    measures = [name.partition("@")[0] for name in costs]
    short = {
        name: st.column_config.TextColumn(measure, width=88, help=f"{name}, exact")
        for name, measure in zip(costs, measures, strict=True)
        if measures.count(measure) == 1
    }
    return {**_COLUMNS, **short}


def _finite(data: object) -> object:
    """Plain data without NaN and infinities, which JSON has not."""
    if isinstance(data, float):
        return data if data - data == 0 else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def _sweep(search: SearchRecord) -> None:
    found = sweep(search)
    if not found.drawable:
        return
    st.header("Recall against the size of the state", divider="gray")
    against = st.segmented_control(
        "Across",
        list(COSTS),
        format_func=lambda cost: COSTS[cost],
        required=True,
        key=adopt("across", list(COSTS), STATE),
        on_change=keep,
        args=("across", STATE),
    )
    st.plotly_chart(
        recall_curves(found, against or STATE),
        key="sweep",
        alt="Accuracy against the size of the state, a panel a number of pairs, a line a mixer, with standard errors",
    )
    _sweep_words(found)


def _sweep_words(found: Sweep) -> None:
    st.caption(plain(" ".join(map(capitalised, sweep_caveats(found)))))
    csv_button("Curves as CSV", found.frame, f"{found.searches[0]}-sweep.csv")


def _waiting(found: Comparison) -> None:
    if not found.waiting:
        return
    st.header("Not compared", divider="gray")
    table(waiting_table(found), "waiting_table", file="not_compared.csv")
