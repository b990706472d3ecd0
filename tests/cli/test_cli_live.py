"""The views: what is said before the first trial, on the way, and at the end, on a terminal and in a pipe."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_samples import OBJECTIVES
from rich.console import Console

from archsearch.analysis.objectives import Objective
from archsearch.analysis.running_front import FrontPoint
from archsearch.arch import ArchSpec
from archsearch.cli.live import LineView, LiveView, briefing_lines, duration, make_view, remaining_trials
from archsearch.cli.pace import Pace
from archsearch.registry import load_registry
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.survey import Refused, Survey
from archsearch.search.view import Briefing, TrialProgress, View

SURVEY = Survey(
    candidates=4761, judged=2000, trainable=1500, over_budget=400, unexercised=100, exhaustive=False, tightest=None
)
BRIEFING = Briefing(
    name="tiny",
    database="sqlite:///x.db",
    survey=SURVEY,
    planned=7,
    trials=4,
    concurrency=2,
    confirms=True,
    objectives=[Objective.from_json(given) for given in OBJECTIVES[:2]],
)
ARCH = ArchSpec.parse("full*3", load_registry())
ORDER = TrialOrder(trial=3, kind="search", arch=ARCH, pattern="full*3", runs=(Run("recall-task", 0),))
FRONT = [
    FrontPoint(trial=3, digest="d", pattern="full*3", values={"recall": 0.91, "state_bytes": 2048.0}, confirmed=False)
]


def told(view: View, state: str = "complete", reason: str = "") -> None:
    view.begun(BRIEFING)
    view.trial_started(ORDER)
    view.trial_progressed(ORDER, TrialProgress(task="recall-task", seed=0, step=10, total_steps=40, value=0.5))
    view.trial_ended(ORDER, state, reason)
    view.advanced(Progress(planned=7, finished=1, refused=2), FRONT)
    view.ended("complete", "")


def shown(view: type[LineView | LiveView], *, terminal: bool, **how: Any) -> str:
    file = io.StringIO()
    told(view(Console(file=file, force_terminal=terminal, width=140, color_system=None)), **how)
    return file.getvalue()


def test_the_briefing_has_candidates_bite_and_time() -> None:
    text = "\n".join(briefing_lines(BRIEFING))
    for part in (
        "4,761 possible",
        "80.0% of 2,000 random",
        "5.0% have sparsity",
        "7 trials",
    ):
        assert part in text


def test_the_briefing_promises_fresh_seeds_where_there_are_some() -> None:
    assert briefing_lines(BRIEFING)[1].endswith("2 at a time, then the front on fresh seeds")
    assert briefing_lines(replace(BRIEFING, confirms=False))[1].endswith("2 at a time")


def test_the_briefing_tells_what_cannot_stand() -> None:
    survey = replace(SURVEY, refused=Refused(count=200, reason='mixer "reader", layer 0: nothing is before it'))
    text = "\n".join(briefing_lines(replace(BRIEFING, survey=survey)))
    assert "70.0% of 2,000 random ones meet the budget" in text
    assert '10.0% cannot stand as they do, such as mixer "reader", layer 0: nothing is before it' in text


def test_a_pipe_gets_whole_lines_without_control_characters() -> None:
    said = shown(LineView, terminal=False)
    assert "\x1b" not in said
    assert "trial 3 (search) started: full*3" in said
    assert "trial 3 complete after" in said
    assert "1/7 trials, 2 refused; front of 1; about" in said
    assert said.endswith("search complete\n")


@pytest.mark.parametrize("view", [LineView, LiveView])
def test_what_went_wrong_is_said_with_its_reason(view: type[LineView | LiveView]) -> None:
    assert "trial 3 failed" in shown(view, terminal=False, state="failed", reason="the worker died")
    assert "the worker died" in shown(view, terminal=False, state="failed", reason="the worker died")


def test_a_terminal_shows_the_front_and_the_running_trials() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    view = LiveView(console)
    view.begun(BRIEFING)
    view.trial_started(ORDER)
    view.trial_progressed(ORDER, TrialProgress(task="recall-task", seed=0, step=10, total_steps=40, value=0.5))
    view.advanced(Progress(planned=7, finished=1), FRONT)
    with console.capture() as captured:
        console.print(view._draw())
    view.ended("complete", "")
    for part in ("1/7 trials", "recall-task seed 0 step 10/40 0.500", "full*3 ?", "0.910", "2 KiB"):
        assert part in captured.get()


def test_the_view_follows_the_console(tmp_path: Path) -> None:
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True)), LiveView)
    assert isinstance(make_view(Console(file=io.StringIO())), LineView)


def test_a_pipe_is_told_once_how_long_all_will_take_as_soon_as_it_is_known() -> None:
    now = [0.0]
    file = io.StringIO()
    view = LineView(Console(file=file, width=140), pace=Pace(lambda: now[0]))
    view.begun(BRIEFING)
    view.trial_started(ORDER)
    for step in (10, 20, 30):
        view.trial_progressed(ORDER, TrialProgress(task="recall-task", seed=0, step=step, total_steps=40, value=0.5))
        now[0] += 10.0
    assert file.getvalue().count("at most about") == 1
    assert "at most about 1 min 40 s for 7 trials" in file.getvalue()


HOSTILE = "evil\x1b[2J\x1b]0;title\x07\u202e name"


@pytest.mark.parametrize("view", [LineView, LiveView])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_what_steers_a_terminal_is_shown_escaped(view: type[LineView | LiveView], *, terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=240, color_system=None)
    made = view(console)
    order = dataclasses.replace(ORDER, pattern=HOSTILE)
    made.begun(BRIEFING)
    made.trial_started(order)
    made.trial_progressed(order, TrialProgress(task=HOSTILE, seed=0, step=10, total_steps=40, value=0.5))
    made.advanced(Progress(planned=7), [dataclasses.replace(FRONT[0], pattern=HOSTILE)])
    if isinstance(made, LiveView):
        console.print(made._draw())
    made.trial_ended(order, "failed", HOSTILE)
    made.noted(HOSTILE)
    made.ended("failed", HOSTILE)
    assert "\\x1b[2J" in file.getvalue()
    for steering in ("\x1b[2J", "\x1b]0", "\x07", "\u202e"):
        assert steering not in file.getvalue()


def test_remaining_trials_count_the_front_until_it_is_confirmed() -> None:
    assert remaining_trials(Progress(planned=7, finished=3), FRONT, BRIEFING) == 5
    assert remaining_trials(Progress(planned=8, finished=7, confirming=True), FRONT, BRIEFING) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
