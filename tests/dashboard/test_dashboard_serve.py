"""The server reads ahead, so that the first viewer does not wait."""

from __future__ import annotations

from archsearch_dashboard import reading, serve
from archsearch_dashboard.connection import store
from dashboard_samples import fill


def test_the_script_that_streamlit_runs_is_there() -> None:
    assert serve.SCRIPT.is_file()


def test_what_is_read_ahead_is_what_pages_read(url: str) -> None:
    assert serve.read_ahead() == len(store().searches())
    newest = store().searches()[-1]
    kept = reading.hypervolume(newest)
    assert kept is reading.hypervolume(newest)
    assert serve.read_ahead(seconds=-1) == 0


def test_a_database_that_is_not_there_is_left_to_the_page(empty_url: str) -> None:
    assert serve.read_ahead() == 0
    fill(empty_url)
    assert serve.read_ahead() > 1
