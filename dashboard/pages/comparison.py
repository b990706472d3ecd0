"""The page that holds every architecture of a search against one of them, metric by metric, with the noise of seeds."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from archsearch.analysis.compared import Comparison
from archsearch.analysis.comparison_frame import frame as comparison_frame
from archsearch.analysis.comparison_words import remarks
from archsearch.analysis.scores import Score
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
    SOON,
    baselines,
    comparison_table,
    families_of,
    matching_frame,
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
    "seeds": st.column_config.NumberColumn(width=52),
    "interval": st.column_config.TextColumn("95% interval", width=125, help="Of this row alone, not corrected"),
    "verdict": st.column_config.TextColumn(width=92),
    **{
        name: st.column_config.TextColumn(
            width=88, help="Tokens until validation first has so much of what full attention gains, with the same seed"
        )
        for name in SOON.values()
    },
    "steps": st.column_config.NumberColumn(width=62, help="Optimiser steps of a training"),
    "training": st.column_config.TextColumn(width=88, help="FLOPs of a training at one learning rate"),
    "rate": st.column_config.NumberColumn(format="%g", width=58, help="Learning rate that is best on validation"),
    "rates": st.column_config.LineChartColumn(
        "over rates", width=78, help="Validation against the learning rate, the lowest first; a scale for each row"
    ),
    "notes": st.column_config.TextColumn(width=190),
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
    if not first.scored:
        st.info("None of the measurements of this search can be read, so that nothing can be compared.")
        return
    part(_drawn, REFRESH_SECONDS if state_of(search) == "running" else None)(search, first)


def _drawn(search: SearchRecord, first: Comparison) -> None:
    left, right = st.columns(2)
    with left:
        found = _held_against(search, first)
    if found is None or not found.scored:
        return
    with right:
        name = _metric(found)
    families = families_of(found, registry())
    st.markdown(plain(summary(found, name)))
    guarded(_differences)(found, name, families, frozenset(answer(search).not_exercised["digest"]))
    guarded(_terms)(found)
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


def _metric(found: Comparison) -> str:
    """The metric that is shown: one of a task's primary metric, by its name, and of what objectives name beside it."""
    names = list(found.scored)
    if len(names) == 1:
        return names[0]
    chosen = st.selectbox(
        "Task, or another metric of one",
        names,
        format_func=lambda name: cell(name, 110),
        key=adopt("task", names, names[0]),
        on_change=keep,
        args=("task", names[0]),
    )
    return chosen or names[0]


def _differences(found: Comparison, name: str, families: dict[str, str], flat: frozenset[str]) -> None:
    score = found.score(name)
    frame = comparison_table(found, name, families, flat)
    if frame["difference"].notna().any():
        st.plotly_chart(
            forest(frame, score.metric, more_is_better=score.direction == "maximize"),
            key="forest",
            alt="Each architecture's difference from the baseline as a mark with its 95% interval, the best above",
        )
        st.caption("A family has its colour and mark; hollow and grey is within noise.")
    shown = told(frame, score)
    table(shown, "comparison_table", columns=_columns(frame, score), height="content" if len(frame) <= 60 else "auto")
    st.caption("\n".join(f"- {plain(capitalised(line))}" for line in remarks(found)))
    with st.container(horizontal=True):
        csv_button("All metrics as CSV", lambda: comparison_frame(found), f"{found.search}-comparison.csv")
        json_button(
            "As JSON", lambda: json.dumps(_finite(found.to_json()), indent=2), f"{found.search}-comparison.json"
        )


def _terms(found: Comparison) -> None:
    """How the architectures were made equal, where they were."""
    if found.matching is None:
        return
    st.header("On what terms", divider="gray")
    st.caption(plain(capitalised(found.matching.title)))
    table(matching_frame(found.matching), "matching_table", file="matching.csv", height="content")


def _columns(frame: pd.DataFrame, score: Score) -> dict[str, object]:
    """The metric by its name, in whole tokens where it counts them, and costs by their measure alone where it is taken
    at one context."""
    digits, tokens = (".0f", " in tokens") if score.budget is not None else (".4f", " on test")
    metric = {
        "score": st.column_config.NumberColumn(
            cell(score.metric, 24), format=f"%{digits}", width=92, help=f"Mean over seeds{tokens}"
        ),
        "error": st.column_config.NumberColumn("±", format=f"%{digits}", width=62, help="Standard error over seeds"),
        "difference": st.column_config.NumberColumn(
            format=f"%+{digits}", width=80, help="From the baseline, of the same seeds"
        ),
    }
    costs = [str(name) for name in frame.columns if "@" in str(name)]
    measures = [name.partition("@")[0] for name in costs]
    short = {
        name: st.column_config.TextColumn(measure, width=88, help=f"{name}, exact")
        for name, measure in zip(costs, measures, strict=True)
        if measures.count(measure) == 1
    }
    return {**_COLUMNS, **metric, **short}


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
