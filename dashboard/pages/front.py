"""The page Front: the Pareto front of a search, the best within a budget, and every trial behind it."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import streamlit as st

from archsearch.analysis.answer import Answer
from archsearch.analysis.axes import choose_axes
from archsearch.analysis.objectives import Objective
from archsearch.storage import SearchRecord

from ..address import clicked_trial, query
from ..boundary import part
from ..connection import registry, store
from ..downloads import csv_button, html_button
from ..figures.front import View
from ..figures.hypervolume import hypervolume_figure
from ..navigation import chosen_search, go, link
from ..queries import budgets, candidates
from ..reading import answers
from ..reading.front import Front, pick, picture, read_front
from ..report.document import report
from ..report.evidence import evidence_of
from ..tables import chosen_row, forget_row
from ..text import capitalised, cell, code, plain, shortened
from .trials import all_trials

REFRESH_SECONDS = 5
_NONE = "none"
Axes = tuple[Objective, Objective, Objective | None]
"""Across, upwards and as colour."""


def page() -> None:
    """Draws the page; that of a running search is refreshed by itself."""
    title, caption = st.empty(), st.empty()
    title.title("Front")  # which stands where there is no search, too
    search = chosen_search()
    answer = answers.answer(search)
    title.title(f"Front of {plain(shortened(search.name, 80))}")
    caption.caption(plain(capitalised(answer.validity.sentence)))
    running = answer.state == "running"
    part(_body, REFRESH_SECONDS if running else None)(search)


def _body(search: SearchRecord) -> None:
    answer = answers.answer(search)
    if not len(answer.points):
        st.info(plain(capitalised(answer.why_no_front())), icon=":material/info:")
        return
    if not answer.objectives:
        st.info("None of the objectives of this search can be read, so that its candidates cannot be compared.")
        return
    axes = _axes(answer)
    chosen = [item for item in axes if item is not None]
    front = read_front(search, [given.name for given in chosen])
    answer = front.answer
    st.markdown(_counts(answer))
    found = answers.answer(search).finding
    if found is not None:
        st.markdown(plain(f"{found.sentence}."))
    if not len(answer.front):
        st.info(plain(capitalised(answer.why_no_front())), icon=":material/info:")
    left, right = st.columns([0.72, 0.28], gap="medium")
    with right:
        best, limits = _budget(search, front)
    with left:
        part(_picture)(search, front, axes, limits, best)
    part(_tables)(search, front)


def _counts(answer: Answer) -> str:
    complete = int((answer.points["state"] == "complete").sum())
    return (
        f"**{len(answer.front)}** of {complete:,} measured candidates are on the front "
        f"({len(answer.points):,} were drawn) · the search is **{answer.state}**"
    )


def _axes(answer: Answer) -> Axes:
    objectives = {item.name: item for item in answer.objectives}
    names = list(objectives)
    across, upwards = choose_axes(answer, None, None)
    columns = st.columns(3)
    x = columns[0].selectbox("Across", names, names.index(across.name), key="x", bind="query-params", format_func=cell)
    y = columns[1].selectbox(
        "Upwards", names, names.index(upwards.name), key="y", bind="query-params", format_func=cell
    )
    third = [name for name in names if name not in (across.name, upwards.name)]
    first = third[0] if third else _NONE
    z = columns[2].selectbox(
        "Colour",
        [*names, _NONE],
        [*names, _NONE].index(first),
        key="z",
        bind="query-params",
        format_func=cell,
        help="A third objective. The front is the one over the objectives that are chosen here.",
    )
    colour = objectives.get(z) if z not in (x, y) else None
    return objectives[x], objectives[y], colour


def _picture(search: SearchRecord, front: Front, axes: Axes, limits: dict[str, float], best: int | None) -> None:
    """The switches and the chart, which are drawn anew without the rest."""
    _chart(search, front, _view(search, front, axes, limits, best))


def _view(search: SearchRecord, front: Front, axes: Axes, limits: dict[str, float], best: int | None) -> View:
    across, upwards, colour = axes
    show = st.pills(
        "Beside the front",
        candidates.SHOWN,
        selection_mode="multi",
        default=candidates.shown_first(front.answer),
        key="show",
        bind="query-params",
    )
    switches = st.columns([0.2, 0.2, 0.6])
    log = {
        axis
        for axis, objective, column in (("x", across, switches[0]), ("y", upwards, switches[1]))
        if column.toggle(
            f"log {'across' if axis == 'x' else 'upwards'}",
            objective.name in front.log,
            key=f"log{axis}",
            bind="query-params",
        )
    }
    drawn = {"budget": budgets.spec_limits(search), "my budget": limits}
    return View(x=across, y=upwards, z=colour, show=show, log=log, limits=drawn, best=best)


def _chart(search: SearchRecord, front: Front, view: View) -> None:
    drawn = picture(front, view)
    left = st.session_state.get("front_left", 0)
    event = st.plotly_chart(
        drawn.figure,
        on_select="rerun",
        selection_mode="points",
        key=f"front_{left}",
        config={"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": "front"}},
        alt=f"The front over {cell(view.x.name)} and {cell(view.y.name)}; its points are listed in the table below.",
    )
    trial = clicked_trial(event)
    if trial is not None:
        _open(search, trial)
    if drawn.lost:
        st.caption(f"{drawn.lost:,} of these are not drawn: what is not above zero has no place on a logarithmic axis.")
    st.caption(
        "Click a point, or choose a row below (by keyboard: arrow keys, then Shift and Space), to see the architecture "
        "and its evidence."
    )


def _open(search: SearchRecord, trial: int) -> None:
    st.session_state["front_left"] = st.session_state.get("front_left", 0) + 1
    forget_row("front_table")
    go("architecture", query(search=search.name, trial=trial))


def _budget(search: SearchRecord, front: Front) -> tuple[int | None, dict[str, float]]:
    """The sliders and what they choose: the trial that is best, and the limits that are set."""
    answer = front.answer
    wanted, limited = budgets.goals(search)
    st.subheader("My budget")
    if wanted is None or not limited:
        st.caption("A choice needs an objective that is measured and a cost to limit: this search has not both.")
        return None, {}
    if answer.points[wanted.name].isna().all():
        st.caption("Nothing is measured yet, so there is nothing to choose from.")
        return None, {}
    limits = {}
    for objective in limited[:2]:
        limit = _slider(front, objective)
        if limit is not None:
            limits[objective.name] = limit
    found = pick(search, front, wanted.name, limits)
    if found.best is None:
        st.info("No measured candidate is within this budget: raise it.", icon=":material/info:")
        _say(budgets.beyond(search, answer, wanted, limits, None))
        return None, limits
    st.metric(
        plain(f"best {wanted.name} of {found.candidates:,} within it"), wanted.show(float(found.best[wanted.name]))
    )
    st.markdown(code(shortened(str(found.best["pattern"]), 400)))
    st.markdown("  \n".join(plain(f"{item.name} {candidates.value_text(item, found.best)}") for item in limited))
    best = float(found.best[wanted.name])
    _say([*budgets.sureness(found, wanted), *budgets.beyond(search, answer, wanted, limits, best)])
    trial = int(found.best["trial"])
    link("architecture", query(search=search.name, trial=trial), f"Open trial {trial}", ":material/layers:")
    if found.next is not None:
        both = (trial, int(found.next["trial"]))
        link("compare", query(search=search.name, trials=both), "Compare with the next", ":material/compare_arrows:")
    return trial, limits


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        st.markdown(plain(sentence))


def _slider(front: Front, objective: Objective) -> float | None:
    texts = {budgets.rung_text(value, objective.unit): value for value in front.rungs[objective.name]}
    chosen = st.select_slider(
        plain(f"{objective.name} at most"),
        [*texts, "no limit"],
        "no limit",
        key=f"max_{objective.name}",
        bind="query-params",
    )
    return texts.get(chosen)


def _tables(search: SearchRecord, front: Front) -> None:
    names = ["The front", "Hypervolume", "All trials"]
    tab = st.segmented_control(
        "Below", names, default=names[0], key="below", bind="query-params", label_visibility="collapsed", required=True
    )
    if tab == names[1]:
        _hypervolume(search)
    elif tab == names[2]:
        all_trials(search)
    else:
        _front_table(search, front)


def _front_table(search: SearchRecord, front: Front) -> None:
    if not len(front.rows):
        return
    row = chosen_row(front.table, "front_table", columns={"pattern": st.column_config.TextColumn(width="large")})
    if row is not None:
        _open(search, int(front.rows["trial"].iloc[row]))
    whole = answers.answer(search)
    with st.container(horizontal=True):
        csv_button("Download every candidate", lambda: _download(search, front.answer), f"{search.name}-candidates.csv")
        html_button(
            "Download the report", lambda: report(whole, evidence_of(store(), whole, registry())), f"{search.name}.html"
        )


def _download(search: SearchRecord, answer: Answer) -> pd.DataFrame:
    """Every candidate, with what it is valid for, so that a row can stand alone."""
    rows = answer.points.assign(on_front=answer.points["digest"].isin(answer.front["digest"]))
    return rows.assign(search=search.name, valid_for=answer.validity.sentence)


def _hypervolume(search: SearchRecord) -> None:
    curve = answers.hypervolume(search)
    if len(curve) < 2:
        st.info("Hypervolume needs two measured candidates: there are not as many yet.", icon=":material/info:")
        return
    st.plotly_chart(hypervolume_figure(curve), key="hypervolume", config={"displaylogo": False})
    st.caption(
        "How much of the space of objectives the front dominates, up to a point a tenth of the range beyond the "
        "worst values of this search: what counts is where the curve still grows."
    )
    csv_button("Download the curve", curve, f"{search.name}-hypervolume.csv")
