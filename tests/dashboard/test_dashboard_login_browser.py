"""The login against an OpenID Connect provider, in a real browser: in, refused, and out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Served, chromium, served, settled, window
from dashboard_samples import fill
from oidc_provider import CLIENT, Provider, provider
from playwright.sync_api import Browser, expect
from ports import free_port

pytestmark = pytest.mark.browser
SECRETS = """[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "a long random text, the same for all"
client_id = "{client}"
client_secret = "unused"
server_metadata_url = "{issuer}/.well-known/openid-configuration"

[archsearch]
viewers = ["ada@example.org", "@lab.example.org"]
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def accounts() -> Iterator[Provider]:
    with provider() as found:
        yield found


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory, accounts: Provider) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("login")
    url = f"sqlite:///{folder}/searches.db"
    fill(url)
    port = free_port()
    (folder / ".streamlit").mkdir()
    secrets = SECRETS.format(port=port, client=CLIENT, issuer=accounts.issuer)
    (folder / ".streamlit" / "secrets.toml").write_text(secrets)
    with served(url, folder=folder, port=port) as found:
        yield found


@pytest.mark.parametrize("address", ["ada@example.org", "Grace@Lab.example.org"])
def test_a_viewer_logs_in(browser: Browser, dashboard: Served, accounts: Provider, address: str) -> None:
    accounts.account = {"email": address, "email_verified": True}
    with window(browser) as page:
        page.goto(f"{dashboard.address}/front?search=quick")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Searches")).to_be_visible()
        page.goto(f"{dashboard.address}/front?search=quick")
        settled(page)
        expect(page.get_by_role("heading", name="Front of quick")).to_be_visible()


@pytest.mark.parametrize(
    "account",
    [
        {"email": "eve@example.org", "email_verified": True},
        {"email": "ada@example.org", "email_verified": False},
        {"email": "ada@example.org.evil.example", "email_verified": True},
        {},
    ],
    ids=["another", "unverified", "longer", "nameless"],
)
def test_another_account_reads_nothing(
    browser: Browser, dashboard: Served, accounts: Provider, account: dict[str, object]
) -> None:
    accounts.account = account
    with window(browser) as page:
        page.goto(dashboard.address)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("may not read here")).to_be_visible()
        assert page.get_by_text("quick").count() == 0
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
