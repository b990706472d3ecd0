"""The page of the mixers: what is registered, what it keeps, costs and was seen to keep to, and what failed."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from archsearch.analysis.crossings import log_contexts
from archsearch.arch import ModelSpec
from archsearch.mixer import MixerPlugin
from archsearch.printable import printable

from ..address import COMPARED
from ..boundary import guarded
from ..connection import registry
from ..downloads import csv_button
from ..figures.costs import cost_curves
from ..option_state import adopt, keep
from ..queries.compare import UNITS, WITH_UNITS
from ..queries.conformance import COMMAND, conformance_of
from ..queries.kernels import forms_in_words, forms_table, held_results, kernel_figures, rows_table, runs_not_ended
from ..queries.mixers import (
    LABELS,
    MEASURED,
    can_cost,
    counted,
    failures,
    layer_curves,
    mixers_table,
    names_of,
    narrowed,
    options_table,
    presets_table,
    state_table,
)
from ..reading.forms import forms_here
from ..tables import table
from ..text import SENTENCE, plain, shortened

SIZES = {
    "small": {"d_model": 64, "n_heads": 2},
    "1B": {"d_model": 2048, "n_heads": 16},
    "7B": {"d_model": 4096, "n_heads": 32, "n_kv_heads": 8},
}
"""Backbones on which a layer is costed; channel mixers are left out, to see the token mixers."""
SIZE = "1B"
"""The backbone that is taken first."""
COST = "traffic"
"""The cost that is drawn first."""

_FIGURES = {
    "ms": st.column_config.NumberColumn(format="%.3g ms"),
    "spread": st.column_config.TextColumn("least to most, ms"),
    "of_bound": st.column_config.NumberColumn("of the bound", format="percent"),
}
_FORMS = {
    "proven": st.column_config.TextColumn("proven when"),
    "why": st.column_config.TextColumn("why", width="large"),
}


def page() -> None:
    """Draws every registered mixer, one of them in full, and the costs of some against context."""
    st.title("Mixers")
    _failures()
    listed = mixers_table(registry())
    if listed.empty:
        st.info("No mixer can be used here: see what failed above, or install a plugin (docs/plugins.md).")
        return
    _listed(listed)
    size = st.selectbox(
        "Costed on a backbone of",
        list(SIZES),
        format_func=_size_text,
        key=adopt("size", list(SIZES), SIZE),
        on_change=keep,
        args=("size", SIZE),
        width=420,
    )
    model = ModelSpec.read({**SIZES[size], "channel_mixer": "none"})
    guarded(_costs)(model)
    guarded(_one)(model)
    guarded(_forms)()
    guarded(_figures)()


def _listed(listed: pd.DataFrame) -> None:
    """All names, narrowed by words and families."""
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    words = left.text_input(
        "Find", key="find", bind="query-params", placeholder="a name, a rule, a paper: gated delta", max_chars=100
    )
    with right:
        families = st.pills(
            "Family",
            listed["family"].unique().tolist(),
            selection_mode="multi",
            format_func=lambda family: f"{family} ({(listed['family'] == family).sum()})",
            key="families",
        )
    found = narrowed(listed, words or "", families or [])
    if found.empty:
        st.info("Nothing is called so, and no rule or paper has all of these words: use fewer, or other families.")
        return
    st.markdown(plain(f"{counted(found)} can be searched over."))
    table(found, "mixers_table", file="mixers.csv", columns={"rule": st.column_config.TextColumn(width="large")})


def _size_text(name: str) -> str:
    shape = ModelSpec.read(SIZES[name]).shape
    fewer = f", {shape.n_kv_heads} of keys and values" if shape.n_kv_heads != shape.n_heads else ""
    return f"{name} ({shape.d_model} wide, {shape.n_heads} heads of {shape.head_dim}{fewer})"


def _failures() -> None:
    failed = failures(registry())
    for row in failed.to_dict("records"):
        st.error(plain(f"Plugin {row['plugin']} of {row['distribution']}: {row['status']}"), icon=":material/error:")
        said = shortened(str(row["error"] or "no reason given"), SENTENCE)
        st.code(printable(said), language=None, wrap_lines=True)


def _costs(model: ModelSpec) -> None:
    st.header("Cost of one layer against context", divider="gray")
    known = names_of(registry())
    usable = [name for name in known if can_cost(name, registry(), model) is None]
    preferred = [name for name in ("full", "sliding", "kda", "moba", "nsa") if name in usable] or usable[:COMPARED]
    names = st.multiselect(
        "Mixers and presets, with their defaults",
        usable,
        default=preferred,
        max_selections=COMPARED,
        key="mixers",
        bind="query-params",
        select_all=False,
    )
    measure = st.segmented_control(
        "Cost",
        list(MEASURED),
        format_func=lambda name: LABELS[name],
        required=True,
        key=adopt("cost", MEASURED, COST),
        on_change=keep,
        args=("cost", COST),
    )
    if not names:
        st.info("Choose mixers to see what a layer of each costs.")
        return
    measure = measure or COST
    curves = layer_curves(names, registry(), model, log_contexts())
    st.plotly_chart(
        cost_curves(curves, measure, title=LABELS[measure], unit=UNITS[measure], families=known),
        key="curves",
        alt=f"{LABELS[measure]} of one layer of each mixer against the context, both logarithmic",
    )
    st.caption(
        f"One layer, one sequence, in {model.dtype}; recurrent states in float32. Exact, by each plugin's costs."
    )
    csv_button("Curves as CSV", curves.rename(columns=WITH_UNITS), "mixers_by_context.csv")


def _one(model: ModelSpec) -> None:
    st.header("One mixer", divider="gray")
    mixers: dict[str, MixerPlugin[Any]] = {mixer.name: mixer for mixer in registry().mixers()}
    name = st.selectbox("Mixer", list(mixers), key="mixer", bind="query-params", width=300)
    mixer = mixers[name]
    st.markdown(plain(f"{mixer.name}, of the family {mixer.family}: {mixer.summary}."))
    st.subheader("Options")
    table(options_table(mixer, registry()), "options_table", file=f"{mixer.name}_options.csv", height="content")
    presets = presets_table(mixer, registry())
    if len(presets):
        st.subheader("Presets")
        table(presets, "presets_table", file=f"{mixer.name}_presets.csv")
    st.subheader("State of one sequence")
    refused = can_cost(name, registry(), model)
    if refused:
        st.info(plain(f"Not on this backbone: {refused}"))
    else:
        table(state_table(mixer, registry(), model), "state_table", file=f"{mixer.name}_state.csv")
    _conformance(mixer)


def _conformance(mixer: MixerPlugin[Any]) -> None:
    st.subheader("Conformance")
    for law, why in mixer.broken_laws.items():
        st.warning(plain(f"Breaks the law “{law}” by design: {why}"))
    found = conformance_of(mixer)
    for failure in found.failures:
        st.error(plain(failure), icon=":material/gavel:")
    st.markdown(plain(found.headline))
    for note in found.notes:
        st.caption(plain(note))
    if found.table.empty:
        st.caption("On a card this records them:")
        st.code(COMMAND, language="sh")
    else:
        table(found.table, "conformance_table", file=f"conformance_{mixer.name}.csv", height="content")
    st.subheader("Kernels, row by row")
    rows = rows_table(mixer)
    if rows.empty:
        st.caption("None of its kernels, nor of the core's, was put to the proof yet: which form runs is told below.")
    else:
        table(rows, "rows_table", file=f"{mixer.name}_kernels.csv")


def _forms() -> None:
    st.header("Which form runs each op", divider="gray")
    forms = forms_here(registry())
    st.markdown(plain(forms_in_words(forms)))
    table(forms_table(forms), "forms_table", file="forms.csv", columns=_FORMS, height="content")
    st.caption(
        "On this machine, and on every card that rows of this user's cache, or of a package's list, were put to the "
        "proof on. The core's ops are those around a mixer: convolution, unit length, gates, gated norm."
    )


def _figures() -> None:
    st.header("Kernel figures", divider="gray")
    held, errors = held_results()
    for error in errors:
        st.error(plain(error), icon=":material/error:")
    for said in runs_not_ended(held):
        st.warning(plain(said), icon=":material/warning:")
    figures = kernel_figures(held, registry())
    if figures.empty:
        st.info("None are held: the folder benchmarks/results has no results where this dashboard was started.")
        return
    table(figures, "figures_table", file="kernel_figures.csv", columns=_FIGURES)
    st.caption(
        "Milliseconds are the median over the repeats, with the least and the most. The bound is the time that the "
        "least work takes at the copy and the matrix product that the card reached in the same run."
    )
