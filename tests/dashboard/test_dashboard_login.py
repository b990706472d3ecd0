"""A login that is configured keeps out whoever has not logged in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
from archsearch_dashboard import login
from archsearch_dashboard.login import may_read, submitter
from dashboard_samples import open_page
from streamlit.runtime.context import StreamlitHeaders
from streamlit.testing.v1 import AppTest

VIEWERS = ["ada@example.org", "@lab.example.org"]


@pytest.mark.parametrize(
    ("user", "viewers", "expected"),
    [
        ({"email": "Ada@example.org"}, VIEWERS, True),
        ({"email": "bob@example.org"}, VIEWERS, False),
        ({"email": "bob@lab.example.org", "email_verified": True}, VIEWERS, True),
        ({"email": "bob@lab.example.org", "email_verified": False}, VIEWERS, False),
        ({"email": "bob@evil-lab.example.org"}, VIEWERS, False),
        ({"email": "@lab.example.org@evil.org"}, VIEWERS, False),
        ({}, VIEWERS, False),
        ({"email": "bob@example.org"}, [], False),
        ({}, None, True),
    ],
    ids=["listed", "not-listed", "domain", "unverified", "other-domain", "two-at", "no-address", "nobody", "no-list"],
)
def test_who_may_read(user: dict[str, object], viewers: list[str] | None, expected: bool) -> None:
    assert may_read(user, viewers) is expected


@pytest.mark.parametrize("slug", ["searches", "front", "mixers"])
def test_nothing_is_shown_before_the_login(url: str, slug: str) -> None:
    app = AppTest.from_string(f"from archsearch_dashboard.app import main\nmain({slug!r})", default_timeout=60)
    app.secrets["auth"] = {"cookie_secret": "not a secret", "redirect_uri": "http://localhost:8501/oauth2callback"}
    app.run()
    assert not app.exception
    assert [button.label for button in app.button] == ["Log in"]
    assert not app.dataframe
    assert not app.selectbox
    assert not app.caption


@pytest.mark.parametrize(("text", "shown"), [(None, True), ("[auth", False)], ids=["none", "broken"])
def test_secrets_that_cannot_be_read_show_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, shown: bool
) -> None:
    path = tmp_path / "secrets.toml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(st, "get_option", lambda name: {"secrets.files": [str(path)]}[name])
    app = AppTest.from_string("from archsearch_dashboard.app import main\nmain()", default_timeout=60).run()
    assert bool(app.dataframe) is shown
    assert [error.value for error in app.error] == ([] if shown else [app.error[0].value])
    assert not app.exception


class Secrets(dict[str, Any]):
    """Secrets as they were read."""

    def load_if_toml_exists(self) -> bool:
        return bool(self)


@pytest.mark.parametrize(
    ("secrets", "user", "expected"),
    [
        ({}, {}, ""),
        ({"auth": {}}, {}, None),
        ({"auth": {}}, {"email": "ada@example.org"}, "ada@example.org"),
        ({"auth": {}, "archsearch": {"submitters": ["ada@example.org"]}}, {"email": "bob@example.org"}, None),
        ({"auth": {}, "archsearch": {"submitters": ["@example.org"]}}, {"email": "bob@example.org"}, "bob@example.org"),
        (
            {"auth": {}, "archsearch": {"viewers": ["ada@example.org"], "submitters": ["bob@example.org"]}},
            {"email": "bob@example.org"},
            None,
        ),
    ],
    ids=["no-login", "not-in", "all", "not-listed", "listed", "no-viewer"],
)
def test_who_may_send(
    monkeypatch: pytest.MonkeyPatch, secrets: dict[str, Any], user: dict[str, Any], expected: str | None
) -> None:
    known = {**user, "is_logged_in": bool(user)}
    monkeypatch.setattr(st, "secrets", Secrets(secrets))
    monkeypatch.setattr(st, "user", SimpleNamespace(to_dict=lambda: known))
    assert submitter() == expected


HEADER = "X-Archsearch-User"


@pytest.mark.parametrize(
    ("trusted", "sent", "secrets", "expected"),
    [
        (None, [(HEADER, "ada")], {}, ""),
        (HEADER, [(HEADER.lower(), "ada")], {}, "ada"),
        (HEADER, [(HEADER, "ada\x1b[2J")], {}, "ada\\x1b[2J"),
        (HEADER, [(HEADER, "a" * 900)], {}, "a" * 200),
        (HEADER, [], {}, None),
        (HEADER, [(HEADER, " ")], {}, None),
        (HEADER, [(HEADER, "{http.auth.user.id}")], {}, None),
        (HEADER, [(HEADER, "ada"), (HEADER, "bob")], {}, None),
        (HEADER, [(HEADER, "ada")], {"archsearch": {"submitters": ["ada"]}}, "ada"),
        (HEADER, [(HEADER, "bob@evil.org")], {"archsearch": {"submitters": ["@lab.example.org"]}}, None),
        (HEADER, [(HEADER, "bob")], {"archsearch": {"viewers": ["ada"], "submitters": ["bob"]}}, None),
        (HEADER, [(HEADER, "ada")], {"auth": {}}, None),
    ],
    ids=[
        "not-trusted",
        "named",
        "steering",
        "long",
        "absent",
        "blank",
        "unfilled",
        "twice",
        "listed",
        "not-listed",
        "no-viewer",
        "login-comes-first",
    ],
)
def test_whom_a_proxy_names(
    monkeypatch: pytest.MonkeyPatch,
    trusted: str | None,
    sent: list[tuple[str, str]],
    secrets: dict[str, Any],
    expected: str | None,
) -> None:
    monkeypatch.delenv(login.USER_HEADER, raising=False)
    if trusted is not None:
        monkeypatch.setenv(login.USER_HEADER, trusted)
    monkeypatch.setattr(st, "secrets", Secrets(secrets))
    monkeypatch.setattr(st, "context", SimpleNamespace(headers=StreamlitHeaders(sent)))
    monkeypatch.setattr(st, "user", SimpleNamespace(to_dict=lambda: {"is_logged_in": False}))
    assert submitter() == expected


@pytest.mark.parametrize(("name", "shown"), [("ada", True), ("bob", False), ("", False)])
def test_viewers_are_those_whom_a_proxy_names(
    url: str, monkeypatch: pytest.MonkeyPatch, name: str, shown: bool
) -> None:
    monkeypatch.setenv(login.USER_HEADER, HEADER)
    monkeypatch.setattr(login, "_named_by_proxy", lambda: name)
    app = AppTest.from_string("from archsearch_dashboard.app import main\nmain()", default_timeout=60)
    app.secrets["archsearch"] = {"viewers": ["ada"]}
    app.run()
    assert not app.exception
    assert bool(app.dataframe) is shown
    assert bool(app.error) is not shown
    assert "Log out" not in [button.label for button in app.button]


def test_who_may_only_read_is_shown_no_form(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_SUBMIT_TO", "http://127.0.0.1:8265")
    monkeypatch.setattr("archsearch_dashboard.pages.jobs.submitter", lambda: None)
    app = open_page("jobs")
    assert not app.exception
    assert "may read here and not send searches" in app.error[0].value
    assert not app.text_input
    assert not app.button
