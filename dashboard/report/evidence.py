"""The report's evidence: layers and costs of what stands on the front, how to measure it again, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from archsearch.analysis.answer import Answer
from archsearch.analysis.crossings import CURVES, log_contexts
from archsearch.mixer import Resolver
from archsearch.storage import Store

from ..figures.costs import SERIES, cost_curves
from ..figures.layers import strip
from ..queries.compare import UNITS, Compared, curves_of
from ..queries.trial import JUDGED_BY_STEPS, TrialView, arch_of, judged_by_steps, layers_frame, trial_view, versions_of
from ..text import markup

MOST = 20
"""Architectures of the front that are told in full; the table of the front has all."""

_DRAWN = ("kv_bytes", "decode_flops")


def evidence_of(store: Store, answer: Answer, resolver: Resolver) -> Iterator[str]:
    """HTML on the first `MOST` architectures of the front; plotly's script must be in the page already."""
    views = [trial_view(store, int(trial)) for trial in answer.front["trial"].head(MOST)]
    if not views:
        return
    compared = [_compared(view, resolver) for view in views]
    yield "<h2>Architectures on the front</h2>"
    if len(views) < len(answer.front):
        yield f"<p>The first {MOST} of {len(answer.front)}.</p>"
    layers = strip([(item.label, item.layers) for item in compared])
    yield _drawn(layers)
    yield from _costs([item for item in compared if item.arch is not None][: len(SERIES)], resolver)
    yield "<h2>Measure them again</h2>"
    for view in views:
        yield from _again(view)
    yield from _versions(views)


def _compared(view: TrialView, resolver: Resolver) -> Compared:
    record = view.record
    layers = layers_frame(record.arch, resolver)
    return Compared(
        label=f"trial {record.id}", pattern=record.pattern, arch=arch_of(record, resolver), layers=layers, record=record
    )


def _costs(compared: Sequence[Compared], resolver: Resolver) -> Iterator[str]:
    if not compared:
        return
    contexts, curves = log_contexts(), curves_of(compared, resolver)
    frame = curves.frame(contexts)
    for measure in _DRAWN:
        yield f"<h3>{markup(CURVES[measure])} against context</h3>"
        found = curves.crossings(measure, contexts)
        yield _drawn(cost_curves(frame, measure, title=CURVES[measure], unit=UNITS[measure], crossings=found))
        yield "".join(
            f"<p>From {one.context:,} tokens on {markup(one.dearer)} costs more than {markup(one.cheaper)}.</p>"
            for one in found
        )


def _again(view: TrialView) -> Iterator[str]:
    yield f"<p>Trial {view.record.id}: <code>{markup(view.record.pattern)}</code></p>"
    if judged_by_steps(view.record):
        yield f"<p>{markup(JUDGED_BY_STEPS)}</p>"
    yield f"<pre>{markup(view.again)}</pre>" if view.again else "<p>How it was measured cannot be read.</p>"


def _versions(views: Sequence[TrialView]) -> Iterator[str]:
    """Every version that made a figure of these, and the plugins that the search ran with."""
    found: dict[str, dict[str, None]] = {}
    for view in views:
        for name, version in versions_of(view.record).items():
            found.setdefault(name, {})[version] = None
    for plugin, distribution, number in views[0].plugins:
        found.setdefault(f"plugin {plugin}", {})[f"{distribution} {number}"] = None
    if not found:
        return
    yield "<h2>Versions</h2>"
    rows = "".join(
        f"<tr><td>{markup(name)}</td><td>{markup('; '.join(versions))}</td></tr>"
        for name, versions in sorted(found.items())
    )
    yield f"<table><thead><tr><th>what</th><th>version</th></tr></thead><tbody>{rows}</tbody></table>"


def _drawn(figure: go.Figure) -> str:
    """A figure on white, without the script that an earlier one brought."""
    figure.update_layout(template="plotly_white")
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return drawn
