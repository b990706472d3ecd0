"""The page that says which choices matter for an objective, each with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from archsearch.analysis.axes import axis_label
from archsearch.analysis.contrasts import clear
from archsearch.analysis.importance import BEST
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.storage import SearchRecord

from ..boundary import guarded, part
from ..colours import style_of
from ..connection import registry
from ..downloads import csv_button
from ..figures.importance import importance_bars, level_means, parallel
from ..navigation import chosen_search
from ..option_state import adopt, keep
from ..queries.matters import (
    Evidence,
    changes_table,
    decay_of,
    dimensions,
    families,
    moves_table,
    place_of,
    share_of,
    signed,
    unsigned,
    verdict,
    why_no_importance,
)
from ..reading.answers import answer
from ..reading.evidence import evidence_of, importance_of
from ..tables import table
from ..text import capitalised, cell, plain


def page() -> None:
    """Draws what matters for the objective that the URL names, or the first."""
    st.title("What matters")
    search = chosen_search()
    found = evidence_of(search)
    if not len(found.table):
        why = capitalised(answer(search).why_no_front())
        st.info(plain(f"{why} Nothing can be said of what matters without a measurement."))
        return
    objectives = {objective.name: objective for objective in objectives_of(search)}
    if not objectives:
        st.info("None of the objectives of this search can be read, so that nothing can be told to matter for them.")
        return
    names, first = list(objectives), next(iter(objectives))
    name = st.segmented_control(
        "For the objective",
        names,
        format_func=plain,
        required=True,
        key=adopt("objective", names, first),
        on_change=keep,
        args=("objective", first),
    )
    objective = objectives[name or first]
    st.caption(plain(f"{found.sentence} All figures are {answer(search).validity.sentence}."))
    kinds = families(found, registry())
    guarded(_importance)(search, found, objective)
    guarded(_share)(found, objective, kinds)
    guarded(_decay)(found, objective)
    guarded(_place)(found, objective, kinds)
    part(_parallel)(search, found, kinds, objective)


def _importance(search: SearchRecord, found: Evidence, objective: Objective) -> None:
    st.header("Importance of each choice", divider="gray")
    importances = importance_of(search, objective)
    if importances.empty:
        st.info(plain(why_no_importance(found, objective)))
        return
    st.plotly_chart(
        importance_bars(importances),
        key="importance",
        alt="The most important choices as bars, with what chance would reach",
    )
    st.caption(
        plain(
            f"How much each choice of the sampler decides whether a candidate is among the best {BEST:.0%} in "
            f"{objective.name} (PED-ANOVA). Bars are faint where luck alone would reach as far in one of twenty tries; "
            "errors come from random halves of the candidates. A choice that only opens others counts apart from them. "
            "Choices have the sampler's names, which count "
            "layers from 0."
        )
    )
    csv_button("Importances as CSV", importances, "importances.csv")


def _family_choice(kinds: Mapping[str, str], key: str, label: str) -> str:
    known = list(dict.fromkeys(kinds.values()))
    default = known.index("full") if "full" in known else 0
    return st.selectbox(label, known, index=default, key=key, bind="query-params", format_func=cell, width=260)


def _share(found: Evidence, objective: Objective, kinds: Mapping[str, str]) -> None:
    st.header("How many layers of a family", divider="gray")
    family = _family_choice(kinds, "share", "Family")
    effect = share_of(found, objective, kinds, family)
    _levels(effect.levels, objective, f"{family} layers", style_of(family).colour, "share")
    _changes(
        changes_table(effect, objective, f"one more {family} layer, for one of another family"),
        "share",
        f"No two candidates differ in one layer alone that is {family} in one of them, and too few were measured for a "
        "fit over all.",
    )


def _decay(found: Evidence, objective: Objective) -> None:
    st.header("How fine the decay is", divider="gray")
    effect = decay_of(found, objective)
    if effect.levels.empty and effect.changes.empty:
        st.info("No candidate has layers with a decay that differs from another's: there is nothing to compare.")
        return
    if not effect.levels.empty:
        _levels(effect.levels, objective, "decay of all layers that have one", style_of("linear").colour, "decay")
    _changes(
        changes_table(effect, objective, "{before} to {after}"),
        "decay",
        "No two candidates differ in the decay of one layer alone, and too few were measured for a fit over all: what "
        "is drawn above differs in other things too.",
    )


def _place(found: Evidence, objective: Objective, kinds: Mapping[str, str]) -> None:
    st.header("Where a layer sits", divider="gray")
    family = _family_choice(kinds, "place", "Layers of the family")
    effect = place_of(found, objective, kinds, family)
    _levels(effect.levels, objective, f"where a {family} layer is", style_of(family).colour, "place")
    later = effect.later
    if not later.pairs:
        st.info(
            plain(
                f"No two candidates differ by a swap of two layers of which one is {family}: with everything else "
                "equal, nothing is known of where it should sit."
            )
        )
        return
    told = clear(later.mean, later.error, later.freedom)
    error = f" ± {unsigned(later.error, objective)}" if later.error == later.error else ", of unknown error"
    st.markdown(
        plain(
            f"A {family} layer that changes places with a later one: {objective.name} {signed(later.mean, objective)}"
            f"{error}, from {later.pairs:,} pairs of {later.candidates:,} candidates that differ by that swap alone "
            f"({verdict(later.mean, later.error, told, objective)})."
        )
    )
    table(moves_table(effect, objective), "moves_table", file="moves.csv")


def _levels(levels: pd.DataFrame, objective: Objective, across: str, colour: str, key: str) -> None:
    st.plotly_chart(
        level_means(levels, title=axis_label(objective), unit=objective.unit, colour=colour, across=across),
        key=f"{key}_levels",
        alt=f"The mean of {objective.name} at each level, with standard errors",
    )


def _changes(changes: pd.DataFrame, key: str, none: str) -> None:
    st.caption("Above, candidates differ in other things too: bars are standard errors of the mean.")
    if changes.empty:
        st.info(plain(none))
    else:
        table(changes, f"{key}_changes", file=f"{key}_changes.csv")


def _parallel(search: SearchRecord, found: Evidence, kinds: Mapping[str, str], objective: Objective) -> None:
    st.header("All at once", divider="gray")
    shown = st.toggle(
        "Draw each candidate as a line", key="lines", bind="query-params", help="The largest drawing of the dashboard."
    )
    if not shown:
        return
    axes = dimensions(found, objectives_of(search), kinds)
    if not axes or not len(axes[-1].values):
        st.info("No candidate has a value for every objective.")
        return
    st.plotly_chart(
        parallel(axes, objective.name),
        key="parallel",
        alt="Candidates as lines over the number of layers of each family and the objectives",
    )
    st.caption("A line a candidate; drag along an axis to keep only the lines through that part of it.")
