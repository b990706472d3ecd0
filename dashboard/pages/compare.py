"""The page that puts up to six architectures side by side: layers, scores with their noise, costs against context."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from archsearch.analysis.crossings import CURVES, log_contexts
from archsearch.analysis.validity import Validity
from archsearch.arch import ModelSpec
from archsearch.printable import printable
from archsearch.storage import SearchRecord

from ..address import COMPARED, PATTERNS, TRIALS, trials_of
from ..boundary import guarded
from ..connection import registry, store
from ..downloads import csv_button
from ..figures.costs import cost_curves
from ..figures.layers import strip
from ..figures.scores import score_bars
from ..navigation import chosen_search
from ..option_state import adopt, keep
from ..queries.choice import choices, named
from ..queries.compare import (
    UNITS,
    WITH_UNITS,
    Compared,
    Refused,
    backbone_of,
    cost_table,
    crossing_table,
    curves_of,
    differences,
    gather,
    metric_names,
    verdicts,
)
from ..queries.trial import scores_frame, seeds_frame
from ..reading.answers import answer
from ..reading.noise import noises
from ..tables import table
from ..text import SENTENCE, capitalised, cell, plain, shortened

CONTEXTS = (1_024, 4_096, 32_768, 131_072, 1_048_576, 10_485_760)
_DIFFERENCES = {
    "arch": "architecture",
    "value": "score",
    "low": "95% from",
    "high": "95% to",
    "noise": "noise of",
    "clear": "so",
}
_CROSSINGS = {"from tokens": st.column_config.NumberColumn(format="localized")}
COST = "kv_bytes"
"""The cost that is drawn first."""


def page() -> None:
    """Draws the comparison that the URL names, or one of the front's ends with a reference."""
    st.title("Compare")
    search = chosen_search()
    trials, patterns = _chosen(search)
    model = _backbone(search, trials)
    compared, refused = gather(store(), trials, patterns, model, registry())
    for one in refused:
        _refuse(one)
    if not compared:
        st.info("Choose trials above, or type an architecture, such as `[kda kda kda full]*4`, to see what it costs.")
        return
    compared = compared[:COMPARED]
    guarded(_layers)(compared)
    guarded(_scores)(search, compared)
    guarded(_costs)(search, compared)


def _chosen(search: SearchRecord) -> tuple[list[int], list[str]]:
    """The trials and the patterns to compare; kept in the URL."""
    found = answer(search)
    offered = choices(found)
    wanted = list(trials_of(st.query_params.get(TRIALS)))
    typed = list(dict.fromkeys(filter(str.strip, st.query_params.get_all(PATTERNS))))[:COMPARED]
    if not wanted and TRIALS not in st.query_params and not typed:
        wanted = _suggested(
            [int(trial) for trial in found.front["trial"]], [int(one) for one in found.references["trial"]]
        )
    for trial in wanted:
        offered.setdefault(trial, named(store(), trial))
    st.session_state["compared_trials"], st.session_state["compared_patterns"] = wanted, typed
    trials = st.multiselect(
        "Trials",
        list(offered),
        key="compared_trials",
        max_selections=COMPARED,
        on_change=_remember,
        format_func=lambda trial: cell(offered[trial], 110),
        filter_mode="contains",
        placeholder="choose trials to compare",
        select_all=False,
    )
    patterns = st.multiselect(
        "Architectures typed in",
        typed,
        key="compared_patterns",
        accept_new_options=True,
        on_change=_remember,
        format_func=lambda pattern: cell(pattern, 110),
        max_selections=COMPARED,
        placeholder="type a pattern, as [kda kda kda full]*4, and press Enter",
        help="The notation of `archsearch cost`: mixers or presets with options in brackets, `[...]*4` repeats.",
    )
    _write(trials, patterns)
    if len(trials) + len(patterns) > COMPARED:
        st.warning(f"{COMPARED} stand side by side at most: the last ones are left out.")
    return trials, patterns


def _suggested(front: Sequence[int], references: Sequence[int]) -> list[int]:
    """The cheapest, the middle and the dearest of the front, and a reference."""
    ends = [front[0], front[len(front) // 2], front[-1]] if front else []
    return list(dict.fromkeys([*ends, *references[:1]]))


def _remember() -> None:
    _write(st.session_state["compared_trials"], st.session_state["compared_patterns"])


def _write(trials: Sequence[int], patterns: Sequence[str]) -> None:
    st.query_params[TRIALS] = ",".join(map(str, trials))
    if patterns:
        st.query_params[PATTERNS] = list(patterns)
    elif PATTERNS in st.query_params:
        del st.query_params[PATTERNS]


def _backbone(search: SearchRecord, trials: Sequence[int]) -> ModelSpec:
    """The backbone on which a typed architecture is costed; of a search without a trial, the spec's."""
    spec = search.spec.get("model", {})
    given = {key: value for key, value in spec.items() if key in ModelSpec.model_fields}
    measured = [int(trial) for trial in answer(search).points["trial"].head(1)]
    return backbone_of(store(), [*trials, *measured]) or ModelSpec.read(given)


def _refuse(one: Refused) -> None:
    st.error(f"{plain(shortened(one.given, 80))} cannot be compared:")
    st.code(printable(shortened(one.error, SENTENCE)), language=None)


def _named(compared: Sequence[Compared]) -> pd.DataFrame:
    """The legend of all that follows."""
    return pd.DataFrame(
        [(item.label, item.pattern, item.record.state if item.record else "costs only") for item in compared],
        columns=["architecture", "pattern", "state"],
    )


def _layers(compared: Sequence[Compared]) -> None:
    st.header("Layers", divider="gray")
    st.plotly_chart(
        strip([(item.label, item.layers) for item in compared]),
        key="strips",
        alt="Each architecture as a row of cells, one a layer; those that differ from the first have a frame",
    )
    if len(compared) > 1:
        changed = [f"{item.label}: {_changed(item)}" for item in compared[1:]]
        st.caption(
            plain(f"Layers that differ from those of {compared[0].label} are framed. " + "; ".join(changed) + ".")
        )
    table(_named(compared), "compared_table", file="compared_architectures.csv")


def _changed(item: Compared) -> str:
    places = (item.layers.loc[item.layers["differs"], "layer"] + 1).tolist()
    if not places:
        return "none differs"
    listed = ", ".join(map(str, places[:12])) + (", …" if len(places) > 12 else "")
    return f"layer{'s' if len(places) > 1 else ''} {listed}"


def _scores(search: SearchRecord, compared: Sequence[Compared]) -> None:
    st.header("Scores", divider="gray")
    measured = [item for item in compared if item.record is not None and item.record.measurements]
    if not measured:
        st.info("None of these was measured: nothing is known but what they cost.")
        return
    for item in measured:
        if item.record is not None and item.record.search_id != search.id:
            st.warning(plain(f"{item.label} is of another search: its scores may come from other terms of training."))
    tables = [(item.label, scores_frame(seeds_frame(item.record))) for item in measured if item.record is not None]
    st.plotly_chart(score_bars(tables), key="scores", alt="The score of each architecture in each task as bars")
    told = differences(measured, noises(search, metric_names(measured)))
    table(told.round(4).assign(clear=verdicts(told)), "differences_table", columns=_DIFFERENCES)
    st.caption(
        plain(
            f"Differences are from {measured[0].label}, with bounds of 95% confidence. Their noise is that of the "
            "architectures' own seeds where each has three or more, else the noise that seeds make in this search "
            "(pooled); where no candidate has two seeds it is unknown, and a difference may be luck."
        )
    )
    csv_button("Scores as CSV", told, "compared_scores.csv")
    st.caption(plain(capitalised(Validity.of(search, measured[0].record).sentence)))


def _costs(search: SearchRecord, compared: Sequence[Compared]) -> None:
    st.header("Costs against context", divider="gray")
    curves = curves_of(compared, registry())
    missing = [item.label for item in compared if item.arch is None]
    if missing:
        st.warning(plain(f"{', '.join(missing)}: a plugin is missing here, so that the costs cannot be counted."))
    if len(missing) == len(compared):
        return
    measure = st.segmented_control(
        "Cost",
        list(CURVES),
        format_func=lambda name: CURVES[name],
        required=True,
        key=adopt("cost", list(CURVES), COST),
        on_change=keep,
        args=("cost", COST),
    )
    measure = measure or COST
    contexts = log_contexts()
    found = curves.crossings(measure, contexts)
    frame = curves.frame(contexts)
    st.plotly_chart(
        cost_curves(frame, measure, title=CURVES[measure], unit=UNITS[measure], crossings=found),
        key="curves",
        alt=f"{CURVES[measure]} of each architecture against the context, both logarithmic",
    )
    if found:
        table(crossing_table(found), "crossings_table", file="crossings.csv", columns=_CROSSINGS)
        st.caption("Where a cost grows block by block, two may change order several times about a crossing.")
    elif len(compared) > 1:
        st.caption(f"No two of these change order in {CURVES[measure]} between 1,000 and 10,000,000 tokens.")
    csv_button("Curves as CSV", frame.rename(columns=WITH_UNITS), "costs_by_context.csv")
    at = Validity.of(search, None).context or 32_768
    choice = sorted({*CONTEXTS, at})
    context = st.selectbox(
        "All costs at a context of",
        choice,
        format_func=lambda tokens: f"{tokens:,} tokens",
        key=adopt("context", choice, at),
        on_change=keep,
        args=("context", at),
    )
    table(cost_table(compared, curves, context), "costs_table", file=f"costs_at_{context}.csv")
    st.caption("Exact, by the cost model of each plugin, for one sequence; in brackets, times the first.")
