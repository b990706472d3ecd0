"""The report: a search as one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from archsearch.analysis import hypervolume_over_trials
from archsearch.analysis.answer import Answer
from archsearch.analysis.axes import choose_axes

from ..figures.front import View, default_log, front_figure
from ..figures.hypervolume import hypervolume_figure
from ..queries import budgets, candidates, searches
from ..text import capitalised, markup

STEPS, MOST_ROWS = 200, 500
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2rem auto;
       padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .6rem }
td.pattern { font-family: monospace; overflow-wrap: anywhere }
p.valid { color: #555 }
"""


def report(answer: Answer, evidence: Iterable[str] = ()) -> str:
    """The whole report: what it is valid for, the front as a figure and a table, hypervolume, and every candidate.

    `evidence` are parts of HTML that follow the front, as `evidence.evidence_of` makes them.
    Of more than `MOST_ROWS` candidates beside the front the table holds the first, and says so.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>{markup(answer.search.name)}</title>",
            f"<style>{_STYLE}</style></head><body>",
            *_parts(answer, evidence),
            "</body></html>",
        ]
    )


def _parts(answer: Answer, evidence: Iterable[str]) -> Iterator[str]:
    yield f"<h1>Front of {markup(answer.search.name)}</h1>"
    yield f'<p class="valid">{markup(capitalised(answer.validity.sentence))}</p>'
    yield f"<p>{markup(_counts(answer))}</p>"
    if answer.finding is not None:
        yield f"<p>{markup(answer.finding.sentence)}.</p>"
    if len(answer.front) or len(answer.references):
        yield _figure(answer)
        yield _table(pd.concat([answer.front, answer.references], ignore_index=True), answer)
    if not len(answer.front):
        yield f"<p>{markup(capitalised(answer.why_no_front()))}</p>"
    yield from evidence
    curve = hypervolume_over_trials(answer.points, answer.objectives, most=STEPS)
    if len(curve) > 1:
        yield "<h2>Hypervolume over the candidates</h2>"
        yield hypervolume_figure(curve).to_html(full_html=False, include_plotlyjs=False)
    yield from _others(answer)
    yield f"<p>Written by archsearch {version('archsearch')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>"


def _counts(answer: Answer) -> str:
    complete = int((answer.points["state"] == "complete").sum())
    return (
        f"{len(answer.front)} of {complete:,} measured candidates are on the front; {len(answer.points):,} were "
        f"drawn; the search is {answer.state}. Budget: {searches.budget_of(answer.search)}."
    )


def _figure(answer: Answer) -> str:
    across, upwards = choose_axes(answer, None, None)
    third = next((item for item in answer.objectives if item.name not in (across.name, upwards.name)), None)
    log = [axis for axis, item in (("x", across), ("y", upwards)) if default_log(answer, item)]
    limits = {"budget": budgets.spec_limits(answer.search)}
    view = View(x=across, y=upwards, z=third, show=candidates.SHOWN, log=log, limits=limits)
    figure = front_figure(answer, view)
    figure.update_layout(template="plotly_white")
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    return drawn


def _others(answer: Answer) -> Iterator[str]:
    for name, rows in candidates.groups(answer).items():
        if name == "references" or not len(rows):
            continue
        cut = f", the first {MOST_ROWS}" if len(rows) > MOST_ROWS else ""
        yield f"<details><summary>{len(rows):,} {markup(name)}{cut}</summary>"
        yield _table(rows.head(MOST_ROWS), answer)
        yield "</details>"


def _table(rows: pd.DataFrame, answer: Answer) -> str:
    table = candidates.candidates_table(rows, answer.objectives)
    head = "".join(f"<th>{markup(column)}</th>" for column in table)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"pattern" if column == "pattern" else "value"}">{markup(value)}</td>'
            for column, value in row.items()
        )
        + "</tr>"
        for row in table.to_dict("records")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
