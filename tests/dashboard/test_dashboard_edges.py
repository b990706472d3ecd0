"""Edges of what pages tell: layers not exercised, superseded trials, scores by steps, a clock set back, odd names."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from archsearch_dashboard.figures.frame import escaped
from archsearch_dashboard.figures.front import View, front_figure
from archsearch_dashboard.queries import candidates, searches
from archsearch_dashboard.report.document import report
from archsearch_dashboard.report.evidence import evidence_of
from archsearch_dashboard.unexercised import read_unexercised, unexercised_layers
from dashboard_samples import (
    OBJECTIVES,
    SPEC,
    add_trial,
    half_finished,
    new_search,
    open_page,
    registry,
    texts,
    well,
)
from heartbeats import move

from archsearch.analysis.answer import read_answer
from archsearch.exercise import Unexercised
from archsearch.storage import Store

ODD = "\u202e<b>b</b> :material/home: $x$ **y** \x1b[31m"
SHOWN = r"\u202e<b>b</b> :material/home: $x$ **y** \x1b[31m"


def layer(task: str, seq_len: int, name: str = "sliding(window=64)") -> Unexercised:
    return Unexercised(layer=name, task=task, seq_len=seq_len, dense_up_to=64)


def read(app_text: str) -> str:
    """What a page says, as a reader sees it."""
    return app_text.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\").replace("\u2060", "")


def test_a_layer_is_told_once_with_its_tasks() -> None:
    found = [layer("mqar", 48), layer("copy", 32), layer("mqar", 48), layer("mqar", 48, "moba")]
    assert unexercised_layers(found) == [
        "sliding(window=64) sees all of up to 64 tokens: mqar has 48, copy has 32",
        "moba sees all of up to 64 tokens: mqar has 48",
    ]


def test_a_layer_of_an_old_row_is_told_as_far_as_it_is_known() -> None:
    unreadable = Unexercised(layer="half a sentence", task="", seq_len=0, dense_up_to=0)
    assert unexercised_layers([layer("", 48), unreadable]) == [
        "sliding(window=64) sees all of up to 64 tokens: the task has 48",
        "half a sentence",
    ]


@pytest.mark.parametrize("stored", [None, 3, "x", ["x"], [{"layer": 1}], [{"other": 2}, None]])
def test_what_is_no_layer_is_left_out(stored: object) -> None:
    assert read_unexercised(stored) == []
    good = layer("mqar", 48)
    assert read_unexercised([good.to_json(), *(stored if isinstance(stored, list) else [])]) == [good]


def test_pages_tell_a_layer_once(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        search = new_search(store, "flat")
        found = [layer("mqar", 48), layer("copy", 32)]
        trial = add_trial(store, search, "sliding(window=64)*3", (0.9,), unexercised=found)
    app = well(open_page("architecture", trial=str(trial)))
    told = [read(warning.value) for warning in app.warning]
    sentence = "sliding(window=64) sees all of up to 64 tokens: mqar has 48, copy has 32"
    assert told == [f"Not exercised, and so kept off the front: {sentence}"]
    table = well(open_page("front", below="All trials")).dataframe[0].value
    assert table["remark"].tolist() == [f"not exercised: {sentence}"]


@pytest.fixture
def changed(empty_url: str, tmp_path: Path) -> dict[str, int]:
    """A search with a superseded trial, and one whose first seed was judged by steps."""
    with Store.open(empty_url) as store:
        search = new_search(store, "changed")
        trials = {
            "good": add_trial(store, search, "sliding(window=8)*3", (0.6, 0.7)),
            "superseded": add_trial(
                store, search, "linear(key_dim=4)*3", (0.9, 0.9), state="superseded", reason="linear has changed"
            ),
        }
    with closing(sqlite3.connect(tmp_path / "searches.db")) as database, database:
        where = "trial_id = ? and seed = 0"
        (payload,) = database.execute(f"select payload from measurement where {where}", (trials["good"],)).fetchone()
        steps = json.dumps({**json.loads(payload), "judged": "steps"})
        database.execute(f"update measurement set payload = ? where {where}", (steps, trials["good"]))
    return trials


def test_a_superseded_trial_is_told_counted_and_on_no_front(changed: dict[str, int], empty_url: str) -> None:
    app = well(open_page("architecture", trial=str(changed["superseded"])))
    assert [read(one.value) for one in app.warning] == ["Superseded, and so kept off the front: linear has changed"]
    assert well(open_page("searches")).dataframe[0].value["superseded"].tolist() == [1]
    table = well(open_page("front", below="All trials", state="superseded")).dataframe[0].value
    assert table[["trial", "state", "remark"]].to_numpy().tolist() == [
        [changed["superseded"], "superseded", "linear has changed"]
    ]
    with Store.open(empty_url, read_only=True) as store:
        answer = read_answer(store, "changed")
    assert answer.front["trial"].tolist() == [changed["good"]]
    recall, state, _ = answer.objectives
    figure = front_figure(answer, View(x=state, y=recall, show=candidates.SHOWN))
    (drawn,) = [trace for trace in figure.data if trace.name == "superseded"]
    assert [custom[0] for custom in drawn.customdata] == [changed["superseded"]]
    assert "superseded: its source has changed since" in drawn.hovertext[0]
    assert "1 superseded" in report(answer)


def test_no_column_of_superseded_trials_where_there_are_none(url: str) -> None:
    assert "superseded" not in open_page("searches").dataframe[0].value


def test_scores_by_steps_say_so(changed: dict[str, int], empty_url: str) -> None:
    app = well(open_page("architecture", trial=str(changed["good"])))
    assert ["Judged by steps" in read(info.value) for info in app.info] == [True]
    seeds = next(frame.value for frame in app.dataframe if "solved_at" in frame.value)
    assert seeds["remark"].tolist() == ["judged by steps", ""]
    with Store.open(empty_url, read_only=True) as store:
        answer = read_answer(store, "changed")
        assert "Judged by steps" in report(answer, evidence_of(store, answer, registry()))
    other = well(open_page("architecture", trial=str(changed["superseded"])))
    assert not other.info


def test_a_clock_set_back_makes_no_negative_age(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        move(store, half_finished(store)["search"], timedelta(days=2))
    assert open_page("searches").dataframe[0].value["driver"].tolist() == ["heartbeat 0 s ago"]
    now = datetime.now(UTC)
    assert searches.age(now + timedelta(days=400), now) == "0 s ago"


def odd_search(store: Store) -> int:
    """A search of which every text is odd."""
    objectives = [{**OBJECTIVES[0], "name": ODD}, {**OBJECTIVES[1], "unit": "<i>B</i>"}]
    search = store.create_search(ODD, {**SPEC, "budget": {ODD: ODD}}, objectives, plugins=[(ODD, ODD, ODD)])
    trial = add_trial(store, search, "full(rope=0.0)*3", (0.5,), shown=ODD, state="failed", reason=ODD)
    add_trial(store, search, "linear(key_dim=4)*3", (0.5,), shown=ODD)
    store.set_search_state(search, "failed", ODD)
    return trial


def test_odd_texts_are_shown_as_they_are(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        trial = odd_search(store)
    for slug in ("searches", "front", "architecture", "compare", "matters"):
        app = well(open_page(slug, search=ODD, trial=str(trial), trials=str(trial)))
        said = texts(app)
        assert not {"\u202e", "\x1b"} & set(said), slug
        for frame in app.dataframe:
            cells = "".join(map(str, [*frame.value.columns, *frame.value.to_numpy().ravel()]))
            assert not {"\u202e", "\x1b"} & set(cells), slug
        for box in (*app.selectbox, *app.multiselect):
            assert not {"\u202e", "\x1b"} & set("".join(box.options)), slug
    assert f"Front of {SHOWN}" in read(texts(open_page("front", search=ODD)))


def test_figures_and_reports_hold_odd_texts_as_text(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        odd_search(store)
        answer = read_answer(store, ODD)
        written = report(answer, evidence_of(store, answer, registry()))
    recall, state = answer.objectives
    drawn = front_figure(answer, View(x=state, y=recall, show=candidates.SHOWN)).to_json()
    for text in (drawn, written):
        assert "\u202e" not in text
        assert "\x1b" not in text
        assert "<b>b</b>" not in text
        assert "<i>B</i>" not in text
    assert escaped(ODD) == r"\u202e&lt;b&gt;b&lt;/b&gt; :material/home: $x$ **y** \x1b[31m"
