"""The pages Searches and Front on searches of every kind, run by Streamlit's own test bench."""

from __future__ import annotations

from pathlib import Path

import pytest
from dashboard_samples import HTML_NAME, LONG_NAME, fill, half_finished, open_page, texts, well

from archsearch.storage import Store


def test_searches_lists_every_search(url: str) -> None:
    app = well(open_page("searches"))
    table = app.dataframe[0].value.set_index("search")
    assert len(table) == 10
    assert list(table.index[:2]) == ["quick", "half"]
    assert HTML_NAME in table.index
    assert table.loc["quick", "state"] == "complete"
    assert table.loc["half", "state"] == "running"
    assert table.loc["interrupted", "state"] == "interrupted"
    assert table.loc["interrupted", "driver"] == "heartbeat 3 h ago"
    assert table.loc["quick", "front"] == 5
    assert table.loc["quick", "trained"] == pytest.approx(10 / 16)
    assert len(table.loc["quick", "hypervolume"]) == 8
    assert table.loc["empty", "best"] == "no front yet"
    assert "refreshed every 5 s" in texts(app)


def test_reasons_of_searches_are_no_markdown(url: str) -> None:
    said = texts(open_page("searches"))
    assert "16 candidates were trained" in said
    assert r"\<i\>done\</i\> & \*dusted\*" in said
    assert "<script>" not in said.replace(r"\<script\>", "")


def test_a_database_without_searches_says_how_to_make_one(empty_url: str) -> None:
    Store.open(empty_url).close()
    for slug in ("searches", "front"):
        app = well(open_page(slug))
        assert "holds no search yet" in texts(app)
        assert [title.value for title in app.title] == [slug.capitalize()]
        assert "archsearch run" in app.code[0].value


def test_front_shows_the_newest_search(url: str) -> None:
    app = well(open_page("front"))
    assert app.query_params["search"] == "quick"
    said = texts(app)
    assert "**5** of 11 measured candidates are on the front (16 were drawn)" in said
    assert "Valid for 3 layers of d" in said
    assert "costs at 32,768 tokens in bfloat16" in said
    assert app.metric[0].value == "0.965"
    assert "a clear lead" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", r"Search empty has no trials yet"),
        ("one-trial", r"Measured with 1 seed and not confirmed"),
        ("all-infeasible", r"Search all\-infeasible has no complete trial yet (2 infeasible"),
        ("all-failed", "no complete trial yet (2 failed"),
        ("all-nan", "has a value for every objective"),
        ("half", "the search is **running**"),
        ("interrupted", "the search is **interrupted**"),
        (HTML_NAME, r"Front of \<b\>bold\</b\>"),
        (LONG_NAME, "Front of a very long name"),
    ],
    ids=lambda value: value[:12],
)
def test_a_search_of_any_kind_says_something_useful(url: str, name: str, words: str) -> None:
    app = well(open_page("front", search=name))
    assert words.replace("-", "").replace("\\", "") in texts(app).replace("-", "").replace("\\", "")


def test_an_unknown_search_is_told_and_the_newest_shown(url: str) -> None:
    app = well(open_page("front", search="<b>gone</b>"))
    assert r"There is no search “\<b\>gone\</b\>” in this database" in texts(app)
    assert "Front of quick" in texts(app)


def test_the_url_sets_every_choice(url: str) -> None:
    app = well(
        open_page(
            "front",
            search="quick",
            x="decode_flops",
            y="state_bytes",
            z="none",
            show=["failed", "infeasible"],
            logx="false",
            max_state_bytes="10 MiB",
            below="All trials",
            state=["failed", "diverged"],
            find="cuda",
        )
    )
    assert [box.value for box in app.selectbox[:4]] == ["quick", "decode_flops", "state_bytes", "none"]
    assert app.pills[0].value == ["failed", "infeasible"]
    assert not app.toggle(key="logx").value
    assert app.select_slider[0].value == "10 MiB"
    assert app.metric[0].value == "0.920"
    assert "Confirmed on 2 fresh seeds" in texts(app)
    assert app.dataframe[0].value["state"].tolist() == ["failed"]


def test_choices_change_the_view(url: str) -> None:
    app = well(open_page("front", search="quick"))
    app.select_slider(key="max_state_bytes").set_value("10 MiB")
    assert well(app.run()).metric[0].value == "0.920"
    app.selectbox(key="search_choice").set_value("one-trial")
    well(app.run())
    assert app.query_params["search"] == "one-trial"
    assert "Front of one" in texts(app)


@pytest.mark.parametrize(
    "query",
    [{"x": "nothing"}, {"max_state_bytes": "1 lightyear"}, {"page": "-3"}, {"page": "x"}, {"show": "<b>"}],
    ids=lambda query: "-".join(query.values()),
)
def test_a_url_that_makes_no_sense_is_passed_over(url: str, query: dict[str, str]) -> None:
    app = well(open_page("front", search="quick", below="All trials", **query))
    assert len(app.dataframe[0].value) == 19


def test_the_front_over_two_objectives_is_another_one(url: str) -> None:
    app = well(open_page("front", search="quick", z="none"))
    assert "**4** of 11" in texts(app)


def test_what_failed_on_a_seed_stands_on_no_front_of_costs(url: str) -> None:
    app = well(open_page("front", search="quick", x="state_bytes", y="decode_flops", z="none"))
    assert "**1** of 11" in texts(app)


def test_a_budget_says_what_only_the_search_s_own_leaves_out(url: str) -> None:
    assert "the reference of trial 16, recall 0\\.995" in texts(well(open_page("front", search="quick")))
    assert "Not counted" not in texts(well(open_page("front", search="quick", max_state_bytes="20 MiB")))


def test_a_budget_that_nothing_meets(url: str) -> None:
    app = well(open_page("front", search="quick", max_state_bytes="5 KiB"))
    assert "No measured candidate is within this budget" in texts(app)


def test_hypervolume_of_a_search(url: str) -> None:
    assert "where the curve still grows" in texts(well(open_page("front", search="quick", below="Hypervolume")))
    assert "needs two measured" in texts(well(open_page("front", search="one-trial", below="Hypervolume")))


def test_a_filter_that_leaves_no_trial(url: str) -> None:
    app = well(open_page("front", search="quick", below="All trials", find="no such text"))
    assert "No trial is like that" in texts(app)


def test_a_lost_database_is_one_sentence_and_a_second_try(empty_url: str, tmp_path: Path) -> None:
    fill(empty_url)
    app = well(open_page("front"))
    path, away = tmp_path / "searches.db", tmp_path / "away.db"
    for suffix in ("", "-wal", "-shm"):
        lost = Path(f"{path}{suffix}")
        if lost.exists():
            lost.rename(f"{away}{suffix}")
    app.run()
    assert not app.exception
    (error,) = app.error
    assert "there is no database at" in error.value.replace("\\", "")
    assert [button.label for button in app.button] == ["Try again"]
    for suffix in ("", "-wal", "-shm"):
        found = Path(f"{away}{suffix}")
        if found.exists():
            found.rename(f"{path}{suffix}")
    well(app.button[0].click().run())
    assert "Front of quick" in texts(app)


def test_a_file_that_is_no_database_is_told(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "searches.db").write_text("this is no database, and is long enough to be read as a page of one")
    app = open_page("searches")
    assert not app.exception
    assert "the file is not a SQLite database" in app.error[0].value


def test_a_running_search_shows_what_was_added(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        found = half_finished(store)
        app = well(open_page("front"))
        assert "**1** of 2 measured candidates are on the front (4 were drawn)" in texts(app)
        store.set_trial_state(found["running"], "complete")
        well(app.run())
        assert "**2** of 3 measured candidates are on the front (4 were drawn)" in texts(app)


def test_another_database_is_not_answered_from_memory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well(open_page("front"))
    other = f"sqlite:///{tmp_path}/other.db"
    with Store.open(other) as store:
        half_finished(store, "quick")
    monkeypatch.setenv("ARCHSEARCH_STORAGE", other)
    assert "(4 were drawn)" in texts(well(open_page("front")))


def _archive(url: str, *names: str) -> None:
    with Store.open(url) as store:
        for search in store.searches():
            if search.name in names:
                store.set_search_state(search.id, "complete")
                store.archive_search(search.name)


def test_archived_searches_are_listed_when_asked_for(empty_url: str) -> None:
    fill(empty_url)
    _archive(empty_url, "quick", "one-trial")
    app = well(open_page("searches"))
    table = app.dataframe[0].value.set_index("search")
    assert len(table) == 8
    assert not {"quick", "one-trial"} & set(table.index)
    app.toggle(key="archived").set_value(True)
    assert len(well(app.run()).dataframe[0].value) == 10
    assert well(open_page("front")).query_params["search"] != "quick"
    assert "Front of quick" in texts(well(open_page("front", search="quick"))), "a link to it still leads there"


def test_owners_tags_and_notes_are_shown_where_they_tell_searches_apart(empty_url: str) -> None:
    fill(empty_url)
    table = well(open_page("searches")).dataframe[0].value
    assert not {"owner", "tags", "note"} & set(table.columns)
    with Store.open(empty_url) as store:
        store.edit_search("quick", owner="ada", tag=["paper", "gpu"], note="**figure 3**")
    table = well(open_page("searches")).dataframe[0].value.set_index("search")
    assert table.loc["quick", ["owner", "tags", "note"]].tolist() == ["ada", "paper, gpu", "**figure 3**"]
    assert table.loc["half", "owner"] == ""


def test_a_database_of_archived_searches_alone_can_be_looked_at(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        store.set_search_state(store.create_search("old", {}, []), "complete")
    _archive(empty_url, "old")
    app = well(open_page("searches"))
    assert len(app.dataframe[0].value) == 0
    app.toggle(key="archived").set_value(True)
    assert len(well(app.run()).dataframe[0].value) == 1
