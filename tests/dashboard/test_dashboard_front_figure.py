"""The figure of a front: who is drawn, where, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from archsearch_dashboard.figures.front import MOST_FAINT, View, default_log, front_figure, off_scale, thinned
from archsearch_dashboard.figures.hypervolume import hypervolume_figure
from archsearch_dashboard.queries import candidates
from dashboard_samples import HTML_NAME, MIB

from archsearch.analysis.answer import Answer, read_answer
from archsearch.storage import Store


def answer_of(url: str, name: str) -> Answer:
    with Store.open(url, read_only=True) as store:
        return read_answer(store, name)


@pytest.fixture
def answer(url: str) -> Answer:
    return answer_of(url, "quick")


def view(answer: Answer, **changes: Any) -> View:
    recall, state, _ = answer.objectives
    return View(**{"x": state, "y": recall, "show": candidates.SHOWN, **changes})


def drawn(figure: go.Figure) -> dict[int, str]:
    """The name of the trace that draws each trial."""
    found = {}
    for trace in figure.data:
        for custom in trace.customdata if trace.customdata is not None else ():
            assert custom[0] not in found
            found[custom[0]] = trace.name
    return found


def test_every_candidate_is_drawn_once(answer: Answer, trials: dict[str, int]) -> None:
    found = drawn(front_figure(answer, view(answer)))
    assert set(found) == set(answer.points["trial"])
    assert found[trials["confirm-mixed"]] == "front, confirmed"
    assert found[trials["two-full"]] == "front, not confirmed"
    assert found[trials["all-full"]] == "reference, not confirmed"
    assert found[trials["infeasible"]] == "infeasible"
    assert found[trials["nan"]] == found[trials["diverged"]] == "failed"


def test_the_switch_takes_groups_away(answer: Answer) -> None:
    assert set(drawn(front_figure(answer, view(answer, show=())))) == set(answer.front["trial"])


def test_what_a_logarithmic_axis_cannot_place_is_counted(answer: Answer, trials: dict[str, int]) -> None:
    zero = replace(answer, front=answer.front.assign(state_bytes=0.0))
    assert off_scale(zero, view(answer, show=())) == 0
    assert off_scale(zero, view(answer, show=(), log={"x"})) == len(answer.front)
    assert off_scale(answer, view(answer, log={"x", "y"})) == 0


def test_what_has_no_value_stands_below_all_that_has(answer: Answer, trials: dict[str, int]) -> None:
    figure = front_figure(answer, view(answer))
    heights = {
        custom[0]: y
        for trace in figure.data
        if trace.customdata is not None
        for custom, y in zip(trace.customdata, trace.y, strict=True)
    }
    assert heights[trials["infeasible"]] == heights[trials["failed"]] < answer.points["recall"].min()


def test_bars_go_from_the_least_to_the_greatest_seed(answer: Answer, trials: dict[str, int]) -> None:
    figure = front_figure(answer, view(answer))
    trace = next(trace for trace in figure.data if trace.name == "front, confirmed")
    at = [custom[0] for custom in trace.customdata].index(trials["confirm-mixed"])
    assert trace.error_y.array[at] == pytest.approx(0.01)
    assert trace.error_y.arrayminus[at] == pytest.approx(0.01)
    assert trace.error_x.array is None


def test_budget_lines_on_a_log_axis_stand_by_the_value_and_their_text_by_its_logarithm(answer: Answer) -> None:
    limits = {"budget": {"state_bytes": 18 * MIB}, "my budget": {"state_bytes": 8 * MIB, "recall": 0.5}}
    figure = front_figure(answer, view(answer, log=("x",), limits=limits))
    assert [shape.x0 for shape in figure.layout.shapes if shape.xref == "x"] == [18 * MIB, 8 * MIB]
    texts = {note.text: note for note in figure.layout.annotations}
    assert texts["budget 18 MiB"].x == pytest.approx(np.log10(18 * MIB))
    assert texts["budget 18 MiB"].yshift != texts["my budget 8 MiB"].yshift
    assert texts["my budget 0.500"].y == 0.5
    assert texts["chance 0.03"].y == 0.03


def test_axes_have_units_and_contexts(answer: Answer) -> None:
    figure = front_figure(answer, view(answer, log=("x",)))
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.title.text == "state_bytes at 32,768 tokens, less is better, log scale"
    assert all(text.endswith("iB") for text in figure.layout.xaxis.ticktext)
    assert "more is better" in figure.layout.yaxis.title.text
    assert default_log(answer, answer.objectives[1])
    assert not default_log(answer, answer.objectives[0])


def test_a_third_objective_is_a_colour_with_its_unit(answer: Answer) -> None:
    figure = front_figure(answer, view(answer, z=answer.objectives[2]))
    assert all(text.endswith("FLOP") for text in figure.layout.coloraxis.colorbar.ticktext)
    assert set(drawn(figure)) == set(answer.points["trial"])


def test_the_best_is_ringed(answer: Answer, trials: dict[str, int]) -> None:
    figure = front_figure(answer, view(answer, best=trials["two-full"]))
    ring = next(trace for trace in figure.data if trace.name == "best within my budget")
    assert ring.y == pytest.approx([0.965])


def test_text_of_a_pattern_is_no_markup(url: str) -> None:
    answer = answer_of(url, HTML_NAME)
    figure = front_figure(answer, view(answer))
    texts = [text for trace in figure.data if trace.hovertext is not None for text in trace.hovertext]
    assert any("&lt;img src=x" in text for text in texts)
    assert not any("<img" in text for text in texts)


@pytest.mark.parametrize("name", ["all-infeasible", "all-failed", "all-nan", "one-trial"])
def test_a_search_with_little_to_draw(url: str, name: str) -> None:
    answer = answer_of(url, name)
    figure = front_figure(answer, view(answer, log=("x", "y")))
    assert set(drawn(figure)) == set(answer.points["trial"])


def test_very_many_dominated_points_are_thinned_and_counted(answer: Answer) -> None:
    count = 3 * MOST_FAINT
    worse = pd.concat([answer.dominated.head(1)] * count, ignore_index=True)
    worse = worse.assign(trial=range(1000, 1000 + count), digest=[f"w{index}" for index in range(count)])
    many = replace(answer, points=pd.concat([answer.points, worse], ignore_index=True))
    names = {trace.name for trace in front_figure(many, view(many)).data}
    dominated = len(candidates.groups(many)["dominated"])
    assert f"dominated ({MOST_FAINT:,} of {dominated:,} drawn)" in names
    assert len(thinned(worse)) == MOST_FAINT
    assert thinned(worse)["trial"].iloc[[0, -1]].tolist() == [1000, 999 + count]


def test_hypervolume_is_drawn_in_shares_of_the_last() -> None:
    curve = pd.DataFrame({"number": [0, 5, 9], "trial": [1, 6, 10], "hypervolume": [2.0, 4.0, 8.0]})
    (trace,) = hypervolume_figure(curve).data
    assert list(trace.y) == [0.25, 0.5, 1.0]
    flat = hypervolume_figure(curve.assign(hypervolume=0.0)).data[0]
    assert list(flat.y) == [0.0, 0.0, 0.0]
