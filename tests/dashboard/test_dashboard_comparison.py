"""The page that holds all architectures of a search against one: verdicts, its figures, and searches of every kind."""

from __future__ import annotations

import pytest
from archsearch_dashboard.figures.comparison import forest
from archsearch_dashboard.figures.sweep import recall_curves
from archsearch_dashboard.pages import comparison as page
from archsearch_dashboard.queries.comparison import (
    comparison_table,
    families_of,
    matching_frame,
    summary,
    told,
)
from archsearch_dashboard.text import capitalised, plain
from comparison_samples import MATCHED, TASKS, listed, many, matched, swept
from dashboard_samples import HTML_NAME, LONG_NAME, open_page, registry, texts, well
from grids import grid

from archsearch.analysis.compared import Comparison
from archsearch.analysis.comparison import compare
from archsearch.analysis.comparison_frame import frame
from archsearch.analysis.comparison_words import remarks
from archsearch.analysis.sweep import read_sweep
from archsearch.errors import ArchsearchError
from archsearch.storage import Store


def held(store: Store, name: str = "listed", baseline: str | None = None) -> Comparison:
    return compare(store, name, registry(), baseline)


SEARCHES = {
    "quick": "quick",
    "empty": "empty",
    "one": "one-trial",
    "infeasible": "all-infeasible",
    "failed": "all-failed",
    "nan": "all-nan",
    "half": "half",
    "html": HTML_NAME,
    "long": LONG_NAME,
}


@pytest.mark.parametrize("search", grid(SEARCHES, ("empty", "nan")))
def test_every_search_has_a_page_without_an_error(url: str, search: str) -> None:
    app = well(open_page("comparison", search=search))
    assert app.title[0].value == "Comparison"


def test_a_page_says_what_is_better_and_what_is_not_begun(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        listed(store)
    app = well(open_page("comparison", search="listed"))
    said = texts(app)
    assert r"3 architectures against full\*3\: 1 better, 1 worse, 1 within noise" in said
    assert "6 comparisons that are made" in said
    rows = app.dataframe[0].value.set_index("architecture")
    assert rows["verdict"].to_dict() == {
        "kda(key_dim=4)*2 full": "better",
        "full*3": "baseline",
        "deltanet(key_dim=4)*3": "within noise",
        "kda(key_dim=4)*3": "worse",
    }
    assert rows["family"].tolist() == ["hybrid", "full", "linear", "linear"]
    assert rows.loc["full*3", "rates"] == pytest.approx([0.728, 0.91])
    assert app.dataframe[1].value["architecture"].tolist() == ["gla*3"]


def test_a_metric_beside_the_primary_one_has_its_own_table(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        matched(store)
        found = held(store, "matched")
    assert found.scored == ("mqar", "mqar.tokens_to_half", "niah", "niah.accuracy@2x")
    assert found.comparisons == 12
    families = families_of(found, registry())
    primary, twice = (comparison_table(found, name, families) for name in ("mqar", "niah.accuracy@2x"))
    assert {"to half", "to 95%", "rate", "rates"} <= set(primary)
    assert not {"to half", "rate", "rates", "steps"} & set(twice)
    assert primary["to half"].str.fullmatch(r"\d+ k").all()
    by_name = twice.set_index("architecture")
    assert by_name.loc["full*3", "score"] == pytest.approx((0.9**2 + 0.91**2 + 0.92**2) / 3)
    assert by_name.loc["full*3", "verdict"] == "better"
    tokens = found.score("mqar.tokens_to_half")
    assert tokens.budget == 300 * 64 * 48
    shown = told(comparison_table(found, "mqar.tokens_to_half", families), tokens)
    assert shown["interval"].str.contains("k to").any()
    assert summary(found, "niah.accuracy@2x").startswith("On niah.accuracy@2x, 3 architectures against")


def test_how_architectures_were_matched_is_a_table(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        matched(store)
        found = held(store, "matched", "full")
    assert found.matching is not None
    table = matching_frame(found.matching).set_index("asked")
    assert list(table) == ["trained", "before", "after", "difference"]
    assert table["trained"].to_dict() == {asked: pattern for asked, (pattern, _) in MATCHED.items()}
    assert table.loc["sliding(window=8)", "difference"] == "baseline"
    assert table.loc["kda", "before"] != table.loc["kda", "after"]


@pytest.mark.slow
def test_the_page_shows_the_matching_and_says_what_the_command_says(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        matched(store)
        found = held(store, "matched")
    app = well(open_page("comparison", search="matched", task="niah.accuracy@2x"))
    assert list(app.selectbox(key="task_option").options) == list(found.scored)
    assert app.dataframe[1].value["asked"].tolist() == list(MATCHED)
    said = texts(app)
    for line in remarks(found):
        assert plain(capitalised(line)) in said


@pytest.mark.slow
def test_baseline_and_task_stand_in_the_url(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        listed(store)
        kda = next(row.digest for row in held(store).rows if row.pattern == "kda(key_dim=4)*3")
    app = well(open_page("comparison", search="listed", baseline=kda, task="niah"))
    assert r"On niah, 3 architectures against kda\(key\_dim\=4\)\*3\: 3 better" in texts(app)
    app.selectbox(key="task_option").set_value("mqar").run()
    assert "task" not in app.query_params
    assert app.query_params["baseline"] == kda
    assert "On mqar" in texts(well(app))
    app = well(open_page("comparison", search="listed", baseline="nobody", task="nothing"))
    assert not {"baseline", "task"} & set(app.query_params)


@pytest.mark.slow
def test_forty_architectures_on_four_tasks_while_the_search_runs(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        many(store)
        found = held(store, "many")
    app = well(open_page("comparison", search="many"))
    assert len(app.dataframe[0].value) == 40
    assert list(app.selectbox(key="task_option").options) == sorted(TASKS)
    assert "seed 1 diverged" in app.dataframe[0].value["notes"].to_list()[-1]
    assert app.dataframe[1].value["state"].tolist() == ["running"]
    table = comparison_table(found, "mqar", families_of(found, registry()))
    figure = forest(table, "accuracy", more_is_better=True)
    assert len(figure.layout.yaxis.tickvals) == 39, "the one that diverged has no difference"
    assert figure.layout.height > 39 * 20
    assert len(frame(found)) == 160


@pytest.mark.slow
def test_more_candidates_than_can_be_compared_are_told(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(empty_url) as store:
        listed(store)
    monkeypatch.setattr(page, "MOST", 3)
    app = well(open_page("comparison", search="listed"))
    assert not app.dataframe
    assert "listed has 4 candidates, and at most 3" in texts(app)


def test_what_differs_clearly_has_its_family_and_what_does_not_is_hollow(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        listed(store)
        found = held(store)
    table = comparison_table(found, "mqar", families_of(found, registry()), flat=[found.others[0].digest])
    drawn = {trace.name: trace for trace in forest(table, "a<b>", more_is_better=True).data if trace.x[0] is not None}
    assert list(drawn["linear"].marker.symbol) == ["diamond-open", "diamond"]
    assert len(set(drawn["linear"].marker.color)) == 2
    assert drawn["full"].x == (0.0,)
    assert min(drawn["linear"].error_x.array) > 0
    assert "within noise" in drawn["linear"].hovertext[0]
    assert "a&lt;b&gt;" in drawn["linear"].hovertext[0]
    assert table["notes"][table["architecture"] == found.others[0].pattern].item().startswith("sparsity not exercised")
    shown = told(table)
    assert shown["interval"].tolist()[1] == ""
    assert " to " in shown["interval"].tolist()[0]
    assert "low" not in shown


def test_a_loss_is_better_where_it_is_less(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        listed(store)
        found = held(store)
    figure = forest(comparison_table(found, "mqar", {}), "loss", more_is_better=False)
    assert "better to the left" in figure.layout.xaxis.title.text
    assert {trace.name for trace in figure.data} == {"other"}
    assert found.ordered("nothing") == []
    assert summary(found, "nothing").startswith("Nothing but full*3 is measured on nothing")


@pytest.mark.slow
def test_a_sweep_is_drawn_with_its_other_widths(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        swept(store)
        for width in (32, 128):
            swept(store, f"swept-d{width}", width, ["full"])
    app = well(open_page("comparison", search="swept"))
    said = texts(app)
    assert "Recall against the size of the state" in [header.value for header in app.header]
    assert "Full is sized by the width of the model" in said
    app.button_group(key="across_option").set_value("decode_read_bytes").run()
    assert well(app).query_params["across"] == "decode_read_bytes"


def test_curves_are_drawn_over_the_state_in_a_panel_for_each_number_of_pairs(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        swept(store, layers=["full", "sliding(window=12)"])
        for width in (32, 128):
            swept(store, f"swept-d{width}", width, ["full"])
        found = read_sweep(store, "swept", registry())
    figure = recall_curves(found, "state_bytes")
    lines = [trace for trace in figure.data if trace.name == "full"]
    assert [len(line.x) for line in lines] == [3, 3]
    assert [line.showlegend for line in lines] == [True, False]
    assert list(lines[0].x) == sorted(lines[0].x)
    assert {annotation.text for annotation in figure.layout.annotations} >= {"4 pairs", "12 pairs"}


@pytest.mark.slow
def test_a_search_of_one_size_has_no_curves(url: str) -> None:
    assert "Recall against the size of the state" not in [
        head.value for head in open_page("comparison", search="half").header
    ]


@pytest.mark.slow
def test_measurements_that_say_too_little_are_left_out(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(empty_url) as store:
        listed(store)
    monkeypatch.setattr("archsearch_dashboard.reading.comparison.NEEDED", ("nothing that is there",))
    assert "None of the measurements of this search can be read" in texts(
        well(open_page("comparison", search="listed"))
    )


@pytest.mark.slow
def test_a_baseline_that_cannot_be_read_is_told(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        listed(store, compare={"baseline": "nobody"})
        with pytest.raises(ArchsearchError):
            held(store)
    assert "Nothing can be compared yet" in texts(well(open_page("comparison", search="listed")))


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["9" * 400, "a\0b", "<b>$x$", "\u202eabc\x1b[2J", ["1", "2"]])
def test_any_value_of_every_key(url: str, typed: str | list[str]) -> None:
    app = well(open_page("comparison", search="quick", baseline=typed, task=typed, across=typed))
    assert not {"baseline", "task", "across"} & set(app.query_params)
