"""The dashboard on PostgreSQL, with a role that may only read: every page, nothing but SELECT, nothing left open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from browser import served as dashboard
from dashboard_samples import HTML_NAME, LONG_NAME, add_trial, fill, half_finished, new_search, open_page, texts, well
from postgres_server import PASSWORD, PostgresServer
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from archsearch.storage import Store

pytestmark = pytest.mark.postgres

SEARCHES = (
    "quick",
    "empty",
    "one-trial",
    "all-infeasible",
    "all-failed",
    "all-nan",
    "half",
    "interrupted",
    HTML_NAME,
    LONG_NAME,
)
MOST_STATEMENTS = 40
PER_SEARCH = 12
"""Statements that one more search costs the list of searches, when it is read for the first time."""
MANY = ("full(rope=0.0)*3", "linear(key_dim=4)*3", "full(rope=0.0) linear(key_dim=4)*2")
_STATES = "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = %s AND usename = 'archsearch_reader'"


@pytest.fixture(scope="module")
def served(postgres: PostgresServer, postgres_template: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The samples in a database, by the URL of the role that reads; trials of "quick" by a short name."""
    name = postgres.new_database(postgres_template)
    trials = fill(postgres.url(name))
    yield postgres.reader_url(name), trials
    postgres.drop_database(name)


@pytest.fixture
def reader_url(served: tuple[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> str:
    """The samples' database, as the one that the dashboard reads."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", served[0])
    return served[0]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that any engine is asked for."""
    heard: list[str] = []

    def hear(connection: object, cursor: object, statement: str, *_: object) -> None:
        heard.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    yield heard
    event.remove(Engine, "before_cursor_execute", hear)


def states_of(postgres: PostgresServer, url: str) -> list[str]:
    """What the connections of the role that reads are doing."""
    return [state for (state,) in postgres.execute(_STATES, values=(make_url(url).database,))]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda name: name[:14])
def test_the_front_of_every_search(reader_url: str, search: str) -> None:
    well(open_page("front", search=search))


@pytest.mark.parametrize("slug", ["searches", "front", "architecture", "compare", "matters"])
def test_a_page_asks_for_nothing_but_rows(
    postgres: PostgresServer, reader_url: str, statements: list[str], slug: str
) -> None:
    well(open_page(slug, search="quick"))
    assert any(" FROM search" in text.replace("\n", " ") for text in statements)
    assert [text for text in statements if not text.lstrip().upper().startswith("SELECT")] == []
    assert states_of(postgres, reader_url) == ["idle"]


def test_the_mixers(reader_url: str) -> None:
    well(open_page("mixers", mixer="linear"))


@pytest.mark.parametrize(
    ("slug", "query"),
    [
        ("front", {"below": "All trials", "find": "CUDA", "state": ["failed", "diverged"]}),
        ("front", {"below": "All trials", "order": "recall", "page": "2"}),
        ("front", {"below": "Hypervolume", "z": "none"}),
        ("matters", {"lines": "true"}),
    ],
    ids=["found", "ordered", "hypervolume", "lines"],
)
def test_a_page_says_what_it_says_on_sqlite(
    reader_url: str,
    filled: tuple[str, dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    slug: str,
    query: dict[str, str | list[str]],
) -> None:
    on_server = well(open_page(slug, search="quick", **query))
    monkeypatch.setenv("ARCHSEARCH_STORAGE", filled[0])
    in_file = well(open_page(slug, search="quick", **query))
    assert texts(on_server) == texts(in_file)
    tables = [[frame.value for frame in app.dataframe] for app in (on_server, in_file)]
    assert len(tables[0]) == len(tables[1])
    for server, file in zip(*tables, strict=True):
        moments = [name for name in server.columns if "datetime" in str(server[name].dtype)]
        assert server.drop(columns=moments).to_csv() == file.drop(columns=moments).to_csv()


@pytest.mark.parametrize("name", ["confirm-mixed", "infeasible", "failed", "nan"])
def test_every_kind_of_trial(reader_url: str, served: tuple[str, dict[str, int]], name: str) -> None:
    app = well(open_page("architecture", search="quick", trial=str(served[1][name])))
    assert f"archsearch show {served[1][name]}" in texts(app)


def test_a_server_that_is_away_is_one_sentence_and_a_second_try(postgres: PostgresServer, reader_url: str) -> None:
    app = well(open_page("front", search="quick"))
    with postgres.away():
        app.run()
        assert not app.exception
        (error,) = app.error
        said = error.value.replace("\\", "")
        assert "Connection refused: check that the server runs" in said
        assert "s3cret" not in said
        assert PASSWORD not in said
        assert [button.label for button in app.button] == ["Try again"]
    well(app.button[0].click().run())
    assert "Front of quick" in texts(app)


def test_the_password_is_in_no_argument_and_no_environment(reader_url: str) -> None:
    password = make_url(reader_url).password or ""
    with dashboard(reader_url) as found:
        shown = [(Path("/proc") / str(found.process.pid) / name).read_bytes() for name in ("cmdline", "environ")]
    assert b"archsearch_dashboard.serve" in shown[0]
    assert b"ARCHSEARCH_STORAGE_FILE=/proc/" in shown[1]
    for form in (password, quote(password), quote_plus(password)):
        assert not [text for text in shown if form.encode() in text]


def test_a_running_search_shows_what_was_added(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(postgres_url) as store:
        found = half_finished(store)
        monkeypatch.setenv("ARCHSEARCH_STORAGE", postgres.reader_url(make_url(postgres_url).database or ""))
        app = well(open_page("front"))
        assert "**1** of 2 measured candidates are on the front (4 were drawn)" in texts(app)
        store.set_trial_state(found["running"], "complete")
        assert "**2** of 3 measured candidates are on the front (4 were drawn)" in texts(well(app.run()))


def test_the_next_viewers_read_a_front_no_more(reader_url: str, statements: list[str]) -> None:
    """What five viewers ask of the server does not grow with the trials: searches by name, and whether they changed."""
    well(open_page("front", search="quick"))
    heard = len(statements)
    well(open_page("front", search="quick"))
    again = statements[heard:]
    assert not [statement for statement in again if "FROM metric" in statement or "trial.pattern" in statement]
    assert len(again) <= MOST_STATEMENTS


@pytest.mark.parametrize("slug", ["searches", "front", "matters", "architecture"])
def test_a_page_asks_as_often_of_many_trials_as_of_few(
    postgres: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch, statements: list[str], slug: str
) -> None:
    asked = []
    for count in (5, 40):
        with Store.open(postgres_url) as store:
            search = new_search(store, f"of-{count}")
            for number in range(count):
                add_trial(store, search, MANY[number % len(MANY)], (0.3 + number / 100,))
            store.set_search_state(search, "complete")
        monkeypatch.setenv("ARCHSEARCH_STORAGE", postgres.reader_url(make_url(postgres_url).database or ""))
        before = len(statements)
        well(open_page(slug, **({} if slug == "searches" else {"search": f"of-{count}"})))
        asked.append(len(statements) - before)
    few, many = asked
    grown = PER_SEARCH if slug == "searches" else 0
    assert many <= few + grown
