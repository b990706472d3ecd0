"""The page of one architecture: what it says of trials in every state, and which one it shows."""

from __future__ import annotations

import pytest
from dashboard_samples import HTML_NAME, LONG_NAME, every_state, new_search, open_page, texts

from archsearch.storage import NewTrial, Store


@pytest.mark.parametrize(
    "search",
    ["empty", "one-trial", "all-infeasible", "all-failed", "all-nan", "half", "interrupted", HTML_NAME, LONG_NAME],
    ids=["empty", "one-trial", "all-infeasible", "all-failed", "nan", "half", "interrupted", "html", "long"],
)
def test_every_search_has_a_page_without_an_error(url: str, search: str) -> None:
    app = open_page("architecture", search=search)
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "Architecture"
    assert len(texts(app)) > 40


def test_a_search_without_trials_says_so(url: str) -> None:
    assert "has no trial yet" in open_page("architecture", search="empty").info[0].value


@pytest.mark.parametrize(
    "name", ["mixed", "confirm-mixed", "infeasible", "diverged", "failed", "preempted", "cancelled", "flat", "nan"]
)
def test_a_trial_of_every_state_has_a_page(url: str, trials: dict[str, int], name: str) -> None:
    app = open_page("architecture", search="quick", trial=str(trials[name]))
    assert not app.exception
    assert app.selectbox(key="trial_choice").value == trials[name]
    with Store.open(url, read_only=True) as store:
        record = store.trial(trials[name])
    said = texts(app)
    assert record.pattern in said
    assert record.state in said
    assert "archsearch evaluate" in said
    assert f"archsearch show {record.id}" in said


def test_the_first_on_the_front_is_shown_without_a_trial_and_kept_in_the_url(url: str) -> None:
    app = open_page("architecture", search="quick")
    chosen = app.selectbox(key="trial_choice")
    assert "on the front" in chosen.options[0]
    assert chosen.options[0].startswith(f"{chosen.value} ")
    assert str(chosen.value) in app.query_params["trial"]


def test_a_trial_alone_names_its_search(url: str, trials: dict[str, int]) -> None:
    app = open_page("architecture", trial=str(trials["mixed"]))
    assert "quick" in app.query_params["search"]
    assert app.selectbox(key="trial_choice").value == trials["mixed"]


def test_a_trial_that_is_not_there_is_told_and_another_is_shown(url: str) -> None:
    app = open_page("architecture", search="quick", trial="999999")
    assert "999999" in app.warning[0].value
    assert app.selectbox(key="trial_choice").value != 999999


def test_choosing_another_trial_changes_the_page_and_the_url(url: str, trials: dict[str, int]) -> None:
    app = open_page("architecture", search="quick", trial=str(trials["mixed"]))
    app.selectbox(key="trial_choice").select(trials["diverged"]).run()
    assert str(trials["diverged"]) in app.query_params["trial"]
    assert any("loss was nan" in warning.value for warning in app.warning)


def test_what_was_not_exercised_and_the_seeds_are_said(url: str, trials: dict[str, int]) -> None:
    app = open_page("architecture", search="quick", trial=str(trials["flat"]))
    assert any("kept off the front" in warning.value for warning in app.warning)
    assert any("2 seeds, 0.800 to 0.820" in caption.value.replace("\\", "") for caption in app.caption)
    assert any("Valid for 3 layers" in caption.value for caption in app.caption)


def test_html_in_names_stays_text(url: str) -> None:
    with Store.open(url, read_only=True) as store:
        named = next(one for one in store.trials(store.search(HTML_NAME).id) if "<img" in one.pattern)
    app = open_page("architecture", search=HTML_NAME, trial=str(named.id))
    as_code = "`<img src=x onerror=alert(1)> **full**`"
    assert as_code in [text.value for text in app.markdown]
    assert not any("<img" in part.value for part in [*app.markdown, *app.caption] if part.value != as_code)


def test_a_missing_plugin_is_said_instead_of_costs(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        search = new_search(store, "old")
        trial = store.add_trial(
            search,
            NewTrial(
                kind="search",
                state="complete",
                digest="d",
                pattern="lost",
                params={},
                seeds=[],
                costs={},
                violations={},
                arch={"model": {"d_model": 64}, "layers": [{"mixer": "lost", "options": {"size": 3}}]},
            ),
        )
    app = open_page("architecture", search="old", trial=str(trial))
    assert not app.exception
    assert any("not installed here" in warning.value for warning in app.warning)


def test_a_replaced_database_is_shown_anew(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        every_state(store, "first")
    assert "first" in texts(open_page("architecture"))


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ("1", r"Trial 1 is not of this search but of one\-trial"),
        ("99999", "has no trial 99999"),
        ("-5", r"“\-5” is no number of a trial"),
        ("9" * 30, "is no number of a trial"),
        ("<b>1</b>", r"“\<b\>1\</b\>” is no number of a trial"),
    ],
    ids=["another-search", "unknown", "negative", "huge", "html"],
)
def test_a_link_to_a_trial_that_cannot_be_shown_says_so(url: str, trial: str, words: str) -> None:
    app = open_page("architecture", search="quick", trial=trial)
    assert not app.exception
    assert len(app.warning) >= 1
    assert words in app.warning[0].value
    assert app.warning[0].value.endswith(r"Another trial is shown\.")


def test_another_search_is_chosen_without_a_word_of_the_trial_before(url: str, trials: dict[str, int]) -> None:
    app = open_page("architecture", search="quick", trial=str(trials["mixed"]))
    app.selectbox(key="search_choice").set_value("one-trial").run()
    assert "is not of this search" not in texts(app)
    assert app.query_params["search"] == "one-trial" or app.query_params["search"] == ["one-trial"]


def test_a_lost_database_is_told_once(empty_url: str) -> None:
    app = open_page("architecture", search="quick", trial="3")
    assert not app.warning
    assert len(app.error) == 1


def test_seeds_without_a_score_are_no_range_of_numbers(url: str, trials: dict[str, int]) -> None:
    said = texts(open_page("architecture", search="quick", trial=str(trials["diverged"])))
    assert "2 seeds, of which not every one gave a score" in said
    assert "nan to nan" not in said
