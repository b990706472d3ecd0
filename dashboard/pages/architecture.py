"""The page of one architecture: its layers, what they cost, what it scored, and how to measure it again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from archsearch.analysis.validity import drawn_backbone
from archsearch.errors import StorageError
from archsearch.printable import printable
from archsearch.storage import SearchRecord
from archsearch.units import format_quantity

from ..address import SEARCH, TRIAL, query, trial_of
from ..boundary import guarded
from ..connection import registry, store
from ..figures.layers import layer_costs, strip
from ..figures.scores import learning_curves, rate_sweep, seed_points
from ..navigation import chosen_search, link
from ..option_state import adopt, keep
from ..queries.choice import choices, named
from ..queries.trial import (
    JUDGED_BY_STEPS,
    LAYER_MEASURES,
    TrialView,
    arch_of,
    costs_frame,
    curves_frame,
    judged_by_steps,
    layer_costs_frame,
    layers_frame,
    scores_frame,
    seeds_frame,
    sweep_frame,
    trial_view,
    versions_of,
    why_unread,
)
from ..reading.answers import answer
from ..tables import table
from ..text import capitalised, cell, code, plain, shortened
from ..unexercised import unexercised_layers

_SWEEP = {"learning_rate": st.column_config.NumberColumn(format="%g")}
_SEEDS = {
    "tokens": st.column_config.NumberColumn("tokens of a sequence"),
    "train_seconds": st.column_config.NumberColumn("training", format="%.1f s"),
    "learning_rate": st.column_config.NumberColumn(format="%g"),
}
_SUPERSEDED, _CHANGED = "Superseded, and so kept off the front", "the source that it was measured with has changed"
MOST_PATTERN = 4_000
"""Characters of a pattern that are shown."""
CONTEXTS = (1_024, 4_096, 32_768, 131_072, 1_048_576, 10_485_760)


def page() -> None:
    """Draws the page of the trial that the URL names, or of the search's first on the front."""
    st.title("Architecture")
    adopted, refused = _adopt_search()
    search = chosen_search()
    trial = _chosen_trial(search, adopted)
    if trial is None:
        return
    if refused:
        st.warning(plain(f"{capitalised(refused)} Another trial is shown."))
    view = trial_view(store(), trial)
    for draw in (_head, _layers, _scores, _training, _reproduce):
        guarded(draw)(view)


def _adopt_search() -> tuple[int | None, str]:
    """The trial that the URL names, and why it cannot be shown; where it names no search, the trial's own is taken."""
    given = st.query_params.get(TRIAL)
    if given is None:
        return None, ""
    wanted = trial_of(given)
    if wanted is None:
        return None, f"“{shortened(given)}” is no number of a trial"
    try:
        record = store().trial(wanted)
    except StorageError as error:
        return None, str(error)
    owner = store().search(record.search_id).name
    if SEARCH not in st.query_params:
        st.query_params[SEARCH] = owner
    if st.query_params[SEARCH] == owner:
        return wanted, ""
    return None, f"trial {wanted} is not of this search but of {shortened(owner, 80)}"


def _chosen_trial(search: SearchRecord, wanted: int | None) -> int | None:
    """The trial to show, chosen from those that were measured; kept in the URL."""
    offered = choices(answer(search))
    if wanted is not None:
        offered.setdefault(wanted, named(store(), wanted))
    if not offered:
        st.info(f"{plain(search.name)} has no trial yet: this page shows one as soon as it is there.")
        return None
    st.session_state["trial_choice"] = wanted if wanted in offered else next(iter(offered))
    chosen = st.selectbox(
        "Trial",
        list(offered),
        key="trial_choice",
        format_func=lambda trial: cell(offered[trial], 150),
        on_change=_remember,
        filter_mode="contains",
    )
    st.query_params[TRIAL] = str(chosen)
    return int(chosen)


def _remember() -> None:
    st.query_params[TRIAL] = str(st.session_state["trial_choice"])


def _head(view: TrialView) -> None:
    record = view.record
    depth = _counted(len(record.arch["layers"]), "layer") if record.arch["layers"] else "layers unknown"
    kind = f"{record.kind} of trial {record.parent}" if record.parent else record.kind
    st.caption(
        plain(
            f"trial {record.id}, number {record.number} of {view.search.name} · {kind} · {record.state} · "
            f"{depth} · digest {record.digest}"
        )
    )
    st.markdown(code(shortened(record.pattern, MOST_PATTERN)))
    drawn = drawn_backbone(view.search.spec, record.arch)
    if drawn:
        st.caption(plain(f"backbone drawn: {', '.join(f'{key} = {value}' for key, value in drawn.items())}"))
    if record.state == "superseded":
        st.warning(plain(f"{_SUPERSEDED}: {record.reason or _CHANGED}"), icon=":material/history:")
    elif record.reason:
        st.warning(plain(f"{record.state}: {record.reason}"), icon=":material/info:")
    for text in unexercised_layers(record.unexercised):
        st.warning(plain(f"Not exercised, and so kept off the front: {text}"), icon=":material/visibility_off:")
    if judged_by_steps(record):
        st.info(plain(JUDGED_BY_STEPS), icon=":material/info:")
    _figures(view)
    st.caption(plain(capitalised(view.validity.sentence)))
    _others(view)


def _figures(view: TrialView) -> None:
    """The scores and the stored costs in large figures."""
    scores, costs = scores_frame(seeds_frame(view.record)), costs_frame(view.record)
    shown = [
        (
            f"{row['task']}, {row['metric']}",
            f"{row['mean']:.3f}" if row["mean"] == row["mean"] else "none",
            _spread(row),
        )
        for row in scores.to_dict("records")
    ]
    for row in costs.to_dict("records"):
        context = f" at {int(row['context']):,} tokens" if row["context"] == row["context"] else ""
        over = f"{row['over']:.0%} over the budget" if row["over"] == row["over"] else "exact"
        shown.append((f"{row['cost']}{context}", format_quantity(row["value"], unit=row["unit"]), over))
    if not shown:
        return
    columns = st.columns(min(len(shown), 4))
    for index, (label, value, note) in enumerate(shown):
        with columns[index % len(columns)]:
            st.metric(plain(label), value, border=True)
            st.caption(plain(note))


def _spread(row: Mapping[Hashable, Any]) -> str:
    seeds, low, high = (row[name] for name in ("seeds", "low", "high"))
    chance = f"chance {row['chance']:.3f}" if row["chance"] == row["chance"] else "chance not known"
    if seeds == 1:
        return f"1 seed: its noise is not known; {chance}"
    if low != low:
        return f"{seeds} seeds, of which not every one gave a score; {chance}"
    return f"{seeds} seeds, {low:.3f} to {high:.3f}; {chance}"


def _others(view: TrialView) -> None:
    """Links to the other trials of the same architecture, and to the page that compares."""
    with st.container(horizontal=True):
        link("compare", query(search=view.search.name, trials=[view.record.id]), "Compare it with others")
        for other in view.others[:5]:
            state = f"{other.state}, {_counted(len(other.seeds), 'seed')}"
            label = f"{other.kind} trial {other.id} of the same architecture ({state})"
            link("architecture", query(search=view.search.name, trial=other.id), label)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _layers(view: TrialView) -> None:
    st.header("Layers", divider="gray")
    layers = layers_frame(view.record.arch, registry())
    if layers.empty:
        st.info("The stored architecture cannot be read, so that neither its layers nor their costs are known.")
        return
    st.plotly_chart(
        strip([("", layers)]),
        key="strip",
        alt="The layers as a strip of cells, the first on the left; the table has all.",
    )
    arch = arch_of(view.record, registry())
    if arch is None:
        st.warning(
            "A plugin that this architecture needs is not installed here, or has changed its options: its costs by "
            "layer cannot be counted. The page Mixers says which plugins there are.\n\n"
            + plain(why_unread(view.record, registry()))
        )
    else:
        left, right = st.columns(2)
        measures = list(LAYER_MEASURES)
        measure = left.selectbox(
            "Cost of each layer",
            measures,
            format_func=lambda name: LAYER_MEASURES[name][0],
            key=adopt("cost", measures, measures[0]),
            on_change=keep,
            args=("cost", measures[0]),
        )
        at = view.validity.context or 32_768
        contexts = sorted({*CONTEXTS, at})
        context = right.selectbox(
            "at a context of",
            contexts,
            format_func=lambda tokens: f"{tokens:,} tokens",
            key=adopt("context", contexts, at),
            on_change=keep,
            args=("context", at),
        )
        costs = layer_costs_frame(arch, registry(), context)
        title, unit = LAYER_MEASURES[measure]
        st.plotly_chart(
            layer_costs(layers, costs, measure, title=title, unit=unit),
            key="layer_costs",
            alt=f"{title} of each layer as bars",
        )
        st.caption(f"Counted for this backbone in {arch.model.dtype}; exact. Each figure includes the channel mixer.")
    listed = layers.assign(layer=layers["layer"] + 1)[["layer", "text", "family", "options"]]
    table(listed, "layers_table", file=f"trial-{view.record.id}-layers.csv")


def _scores(view: TrialView) -> None:
    st.header("Scores", divider="gray")
    seeds = seeds_frame(view.record)
    if seeds.empty:
        st.info(f"Nothing was measured: the trial is {view.record.state}.")
        return
    st.plotly_chart(seed_points(seeds), key="seeds", alt="The score of each seed in each task")
    scores = scores_frame(seeds)
    table(scores.round(4), "scores_table", file=f"trial-{view.record.id}-scores.csv", download=scores)
    table(seeds.round(4), "seeds_table", file=f"trial-{view.record.id}-seeds.csv", columns=_SEEDS, download=seeds)
    st.caption("Test is what counts; the learning rate was chosen on validation. Chance is what a guess scores.")


def _training(view: TrialView) -> None:
    curves, sweep = curves_frame(view.record), sweep_frame(view.record)
    if curves.empty and sweep.empty:
        return
    st.header("Training", divider="gray")
    if not curves.empty:
        st.subheader("Learning curves")
        st.plotly_chart(learning_curves(curves), key="curves", alt="What was logged while training, against the step")
    if not sweep.empty:
        st.subheader("Sweep over learning rates")
        if sweep["learning_rate"].nunique() > 1:
            st.plotly_chart(rate_sweep(sweep, _metric(view)), key="sweep", alt="Validation against the learning rate")
        else:
            st.caption("One learning rate was tried, so that nothing is known of the others.")
        table(sweep, "sweep_table", file=f"trial-{view.record.id}-sweep.csv", columns=_SWEEP)


def _metric(view: TrialView) -> str:
    names = {str(measured.payload["metric"]) for measured in view.record.measurements}
    return names.pop() if len(names) == 1 else "score"


def _reproduce(view: TrialView) -> None:
    st.header("Measure it again", divider="gray")
    if view.again:
        st.code(printable(view.again), language="sh", wrap_lines=True)
    else:
        st.info("How it was measured cannot be read, so that no command is known that measures it again.")
    versions = versions_of(view.record)
    used = {f"plugin {name}": f"{distribution} {version}" for name, distribution, version in view.plugins}
    rows = pd.DataFrame([*versions.items(), *used.items()], columns=["what", "version"])
    if rows.empty:
        st.caption("No versions were recorded: nothing was measured.")
    else:
        table(rows, "versions_table", file=f"trial-{view.record.id}-versions.csv", height="content")
    st.code(f"archsearch show {view.record.id}", language="sh")
