"""The page of a ladder: its rungs, and how far each size could be trusted for the next one."""

from __future__ import annotations

import streamlit as st

from archsearch.analysis.ladder import Ladder, Metric
from archsearch.analysis.ladder_text import agreement_of, remarks, size_of
from archsearch.errors import SpecError

from ..boundary import guarded
from ..figures.ladder import agreement_dots, bump_chart, law_figure
from ..navigation import chosen_search
from ..option_state import adopt, keep
from ..queries.ladder import (
    agreement_table,
    crossings_table,
    law_curves,
    law_points,
    laws_table,
    left_table,
    moves_table,
    places,
    rungs_table,
)
from ..reading.ladder import ladder
from ..tables import table
from ..text import capitalised, cell, plain

_CROSSINGS = {
    "from training FLOPs": st.column_config.NumberColumn(format="scientific"),
    "95% from": st.column_config.NumberColumn(format="scientific"),
    "95% to": st.column_config.NumberColumn(format="scientific"),
    "% of resamples": st.column_config.NumberColumn(format="%.0f %%"),
}


def page() -> None:
    """Draws the ladder of the search that the URL names."""
    st.title("Ladder")
    search = chosen_search()
    try:
        found = ladder(search)
    except SpecError as error:
        st.info(plain(str(error)))
        return
    if found is None:
        st.info(
            plain(
                f"“{search.name}” is no ladder: it has one size. With tables [[rung]] in its spec its survivors are "
                "trained anew, size by size, and this page says how far the small size could be trusted."
            )
        )
        return
    guarded(_rungs)(found)
    if len(found.rungs) < 2:
        st.info("No rung above the search is begun yet: there is nothing to compare.")
        _remarks(found)
        return
    if not found.metrics:
        st.info("No architecture is measured on any rung yet.")
        return
    names = [metric.name for metric in found.metrics]
    name = st.segmented_control(
        "Metric",
        names,
        format_func=plain,
        required=True,
        key=adopt("metric", names, names[0]),
        on_change=keep,
        args=("metric", names[0]),
    )
    metric = found.metrics[names.index(name or names[0])]
    guarded(_places)(found, metric)
    guarded(_agreement)(found)
    guarded(_laws)(found, metric)
    _remarks(found)


def _remarks(found: Ladder) -> None:
    for line in remarks(found):
        st.caption(plain(capitalised(line)))


def _rungs(found: Ladder) -> None:
    table(rungs_table(found), "rungs_table", file="rungs.csv")
    left = left_table(found)
    if len(left):
        with st.expander(f"{len(left)} left behind though their turn had come"):
            table(left, "left_table", file="left_behind.csv")


def _places(found: Ladder, metric: Metric) -> None:
    st.header("Places from rung to rung", divider="gray")
    frame = places(found, metric)
    if frame.empty:
        st.info(plain(f"No rung has a whole score in {metric.name} yet."))
        return
    sizes = {rung.number: _size(size_of(rung)) for rung in found.rungs}
    st.plotly_chart(
        bump_chart(frame, sizes, metric.name),
        key="places",
        alt=f"The place of each architecture in {metric.name} on each rung, joined by lines",
    )
    st.caption("Places are those among the architectures of each rung: where one is left behind, others move up.")
    moves = moves_table(found, metric)
    if len(moves):
        table(moves, "moves_table", file="moves.csv")


def _size(words: str) -> str:
    return cell(", ".join(words.split(", ")[:2]), 40)


def _agreement(found: Ladder) -> None:
    st.header("How far a rung could be trusted for the next", divider="gray")
    frame = agreement_table(found)
    if frame["tau"].notna().any():
        st.plotly_chart(
            agreement_dots(frame), key="agreement", alt="Rank correlation between rungs with its bounds, by metric"
        )
    for step in found.steps:
        st.markdown(plain(f"{step.metric.name}, rung {step.below} to {step.above}: {agreement_of(step)}."))
    table(frame.drop(columns="in words").round(3), "agreement_table", file="agreement.csv", download=frame)


def _laws(found: Ladder, metric: Metric) -> None:
    st.header("Loss against training FLOPs", divider="gray")
    if len(found.rungs) < 3:
        st.info(f"{len(found.rungs)} rungs are begun: a power law has three numbers, and asks for three rungs or more.")
        return
    loss = f"1 - {metric.name}" if metric.maximize else metric.name
    points = law_points(found, metric)
    if len(points):
        st.plotly_chart(
            law_figure(points, law_curves(found, metric), loss),
            key="laws",
            alt=f"{loss} against training FLOPs, with a fitted law for each architecture",
        )
    table(laws_table(found, metric), "laws_table", file="laws.csv")
    crossings = crossings_table(found, metric)
    if len(crossings):
        table(crossings, "crossings_table", file="law_crossings.csv", columns=_CROSSINGS)
    elif len(points):
        st.caption("No two fitted laws cross between the smallest size and 10 times the largest.")
