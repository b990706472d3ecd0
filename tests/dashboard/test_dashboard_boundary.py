"""The boundary: a database that is lost while a page stands open is told where it is missed."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from browser import WAIT_MS, chromium, served, viewer
from dashboard_samples import fill, open_page
from playwright.sync_api import expect

from archsearch.errors import StorageError

LOST = "the file is damaged"


def lost(*_given: object) -> NoReturn:
    raise StorageError(LOST)


@pytest.mark.parametrize(
    ("slug", "inner"),
    [
        ("searches", "_table"),
        ("front", "_axes"),
        ("front", "_view"),
        ("front", "_front_table"),
        ("matters", "dimensions"),
    ],
    ids=["searches", "front", "picture", "tables", "lines"],
)
def test_a_part_of_a_page_tells_it(url: str, slug: str, inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(f"archsearch_dashboard.pages.{slug}.{inner}", lost)
        app = open_page(slug, **({"lines": "true"} if slug == "matters" else {}))
    assert not app.exception
    assert [error.value for error in app.error] == [LOST]
    assert [button.label for button in app.button] == ["Try again"]
    app.button[0].click().run()
    assert not app.exception
    assert not app.error


@pytest.mark.browser
def test_a_database_that_goes_and_comes_back_while_a_search_runs(tmp_path: Path) -> None:
    fill(f"sqlite:///{tmp_path}/searches.db")
    database, away = tmp_path / "searches.db", tmp_path / "away.db"
    with (
        served(f"sqlite:///{database}") as dashboard,
        chromium() as browser,
        viewer(browser, f"{dashboard.address}/front?search=half") as page,
    ):
        database.rename(away)
        expect(page.get_by_text("there is no database at")).to_have_count(1, timeout=WAIT_MS)
        expect(page.get_by_role("button", name="Try again")).to_have_count(1)
        away.rename(database)
        expect(page.get_by_text("measured candidates are on the front")).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_text("there is no database at")).to_have_count(0)
