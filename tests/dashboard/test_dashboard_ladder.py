"""The page of a ladder: none, one rung, two, three; what is drawn and what is said."""

from __future__ import annotations

import json

import pytest
from archsearch_dashboard.figures.ladder import bump_chart, law_figure
from archsearch_dashboard.queries.ladder import (
    agreement_table,
    crossings_table,
    law_curves,
    law_points,
    laws_table,
    left_table,
    moves_table,
    places,
    rungs_table,
)
from dashboard_samples import OBJECTIVES, SPEC, every_state, open_page, texts, well
from ladder_samples import add_ladder
from typer.testing import CliRunner

from archsearch.analysis.ladder import Ladder
from archsearch.analysis.ladder_reading import read_ladder
from archsearch.cli import app
from archsearch.storage import Store


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with ladders of one, two and three rungs, to be read alone."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ladder')}/searches.db"
    with Store.open(url) as store:
        add_ladder(store, "begun", rungs=1, seeds=1)
        add_ladder(store, "half", rungs=2, seeds=1)
        add_ladder(store, "steps")
    return url


@pytest.fixture
def ladder(climbed: str, monkeypatch: pytest.MonkeyPatch) -> Ladder:
    """A ladder of three rungs, in the database that the dashboard reads."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", climbed)
    with Store.open(climbed, read_only=True) as store:
        return read_ladder(store, "steps")


def test_a_search_of_one_size_says_that_it_is_no_ladder(url: str) -> None:
    assert "is no ladder" in well(open_page("ladder", search="quick")).info[0].value


def test_a_ladder_that_is_not_climbed_yet_says_so(ladder: Ladder) -> None:
    page = well(open_page("ladder", search="begun"))
    assert "No rung above the search is begun yet" in page.info[0].value
    assert "1 of 3 rungs are begun" in texts(page)
    assert not page.get("plotly_chart")


def test_two_rungs_have_an_agreement_and_no_laws(ladder: Ladder) -> None:
    page = well(open_page("ladder", search="half.rung2"))
    said = texts(page)
    assert "Kendall" in said
    assert "one seed alone" in said
    assert "asks for three rungs or more" in page.info[0].value
    assert r"2 of 3 rungs are begun" in said
    assert len(page.get("plotly_chart")) == 2


def test_three_rungs_are_drawn_from_any_of_them(ladder: Ladder) -> None:
    page = well(open_page("ladder", search="steps.rung3", metric="recall"))
    assert len(page.get("plotly_chart")) == 3
    assert page.segmented_control[0].value == "recall"
    assert "left behind" in page.expander[0].label


def test_the_frames_of_a_ladder(ladder: Ladder) -> None:
    metric = ladder.metrics[0]
    rungs = rungs_table(ladder)
    assert rungs["search"].tolist() == ["steps", "steps.rung2", "steps.rung3"]
    assert rungs["carried up to it"].fillna(-1).tolist() == [-1, 4, 3]
    assert len(left_table(ladder)) == 2
    frame = places(ladder, metric)
    assert frame.groupby("rung")["place"].apply(list).to_dict() == {
        1: [1, 2, 3, 4, 5, 6],
        2: [1, 2, 3, 4, 5, 6],
        3: [1, 2, 3, 4, 5],
    }
    best = frame[frame["place"] == 1]["pattern"].tolist()
    assert best[0] == "full(rope=0.0)*3"
    moves = moves_table(ladder, metric)
    assert set(moves["rungs"]) == {"1 to 2", "2 to 3"}
    assert agreement_table(ladder)["architectures"].tolist() == [6, 5]
    laws = laws_table(ladder, metric)
    fitted = laws.dropna(subset=["exponent"])
    assert len(fitted) + (laws["why there is no law"] != "").sum() == 5
    assert len(fitted) >= 2
    curves, points = law_curves(ladder, metric), law_points(ladder, metric)
    assert (curves["low"] <= curves["high"]).all()
    assert len(points) == 3 * len(fitted)
    assert set(crossings_table(ladder, metric)["better from there on"]) <= set(laws["pattern"])


@pytest.mark.parametrize("climbed", ["x", {"ladder": "quick", "rung": 2, "kept": "x", "left": 3}], ids=["text", "kept"])
def test_a_rung_whose_origin_cannot_be_read_is_shown_without_it(climbed: object, empty_url: str) -> None:
    with Store.open(empty_url) as store:
        every_state(store)
        store.create_search("above", {**SPEC, "name": "above", "rung": "x", "climbed": climbed}, OBJECTIVES)
    assert well(open_page("ladder", search="above")).info


def test_patterns_in_figures_are_text(ladder: Ladder) -> None:
    metric = ladder.metrics[0]
    frame = places(ladder, metric)
    frame["pattern"] = "<b>" + frame["pattern"]
    drawn = bump_chart(frame, {1: "small"}, metric.name).to_json() or ""
    assert "<b>" not in drawn
    points, curves = law_points(ladder, metric), law_curves(ladder, metric)
    points["pattern"], curves["pattern"] = "<b>" + points["pattern"], "<b>" + curves["pattern"]
    assert "<b>" not in (law_figure(points, curves, "1 - recall").to_json() or "")


def test_the_command_tells_what_the_page_shows(ladder: Ladder) -> None:
    shown = CliRunner().invoke(app, ["ladder", "steps"]).stdout
    wanted = ("d_model 256, 3 layers", "left behind on rung 1: kda(key_dim=4)*3", "Kendall's tau +1.00", "exponent")
    for words in (*wanted, "is predicted to be ahead of", "rose, within noise", "1 - recall = floor + scale"):
        assert words in shown, words
    data = json.loads(CliRunner().invoke(app, ["ladder", "steps.rung2", "--json"]).stdout)
    assert (data["ladder"], data["planned"], len(data["rungs"])) == ("steps", 3, 3)
    assert [step["tau"]["count"] for step in data["steps"]] == [6, 5]
    assert data["laws"][0]["crossings"][0]["sure"] > 0.5
