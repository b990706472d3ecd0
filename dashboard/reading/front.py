"""Reading a front: what the page Front makes of an answer, made once for all viewers that choose the same.

As of `answers`, what is handed out is shared and not to be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from archsearch.analysis import front as front_of
from archsearch.analysis.answer import Answer
from archsearch.analysis.budget import Pick, best_within
from archsearch.analysis.front import eligible
from archsearch.storage import SearchRecord

from ..connection import key, store
from ..figures.front import View, default_log, front_figure, off_scale
from ..queries import budgets, candidates
from . import answers


@dataclass(frozen=True, kw_only=True)
class Front:
    """A search's front over some of its objectives. ``mark`` is another one when the search has changed; ``log`` names
    the objectives that want a logarithmic axis, ``rungs`` has the limits that can be set on each, and ``rows`` are
    those of ``table``, whose first ones are on the front."""

    mark: tuple[str, ...]
    answer: Answer
    log: frozenset[str]
    rungs: Mapping[str, list[float]]
    rows: pd.DataFrame
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The figure of a front, and how many candidates have no place on its logarithmic axes."""

    figure: go.Figure
    lost: int


def read_front(search: SearchRecord, names: Sequence[str]) -> Front:
    """The front of a search over its objectives `names`, with all its candidates."""
    whole = answers.answer(search)
    mark = (key(), search.name, store().revision(search.id), whole.state, *sorted(names))
    return _front(mark, _whole=whole, _names=names)


def pick(search: SearchRecord, front: Front, wanted: str, limits: Mapping[str, float]) -> Pick:
    """The best of `front`'s candidates in the objective `wanted` within `limits`."""

    def find() -> Pick:
        answer = front.answer
        return best_within(answer.points, answers.values(search), answer.objectives, wanted, limits)

    return _pick(front.mark, wanted, tuple(sorted(limits.items())), _find=find)


def picture(front: Front, view: View) -> Picture:
    """What `view` shows of `front`."""
    drawn = repr((view.x.name, view.y.name, view.z and view.z.name, sorted(view.show), sorted(view.log)))
    return _picture(front.mark, drawn, repr((view.limits, view.best)), _front=front, _view=view)


@st.cache_resource(show_spinner=False, max_entries=2 * answers.KEPT)
def _front(mark: tuple[str, ...], *, _whole: Answer, _names: Sequence[str]) -> Front:
    wanted = [objective for objective in _whole.objectives if objective.name in _names]
    points = _whole.points
    found = replace(_whole, front=front_of(points[eligible(points, _whole.objectives)], wanted))
    rows = pd.concat([found.front, found.references], ignore_index=True)
    table = candidates.candidates_table(rows, found.objectives)
    table["#"] = [str(index) if index <= len(found.front) else "" for index in table["#"]]
    return Front(
        mark=mark,
        answer=found,
        log=frozenset(item.name for item in found.objectives if default_log(found, item)),
        rungs={item.name: budgets.ladder(points[item.name].dropna().tolist(), item.unit) for item in found.objectives},
        rows=rows,
        table=table,
    )


@st.cache_resource(show_spinner=False, max_entries=256)
def _pick(
    mark: tuple[str, ...], wanted: str, limits: tuple[tuple[str, float], ...], *, _find: Callable[[], Pick]
) -> Pick:
    return _find()


@st.cache_resource(show_spinner=False, max_entries=64)
def _picture(mark: tuple[str, ...], drawn: str, lines: str, *, _front: Front, _view: View) -> Picture:
    return Picture(figure=front_figure(_front.answer, _view), lost=off_scale(_front.answer, _view))
