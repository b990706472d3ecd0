"""The headers that docs/dashboard.md asks of a proxy: with them every page still draws, and nothing is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import chromium, served, settled, window
from playwright.sync_api import Route

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "dashboard.md"
PROXY = ROOT / "deploy" / "compose" / "caddy" / "Caddyfile"


def headers() -> dict[str, str]:
    """The headers of the table, the fullest policy of content."""
    found: dict[str, str] = {}
    for line in GUIDE.read_text().splitlines():
        for name, value in re.findall(r"`([A-Z][\w-]+): ([^`]+)`", line) if line.startswith("|") else ():
            found[name] = max(found.get(name, ""), value, key=len)
    return found


def test_the_guide_names_the_headers() -> None:
    assert {"X-Frame-Options", "X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy"} <= set(headers())
    assert "frame-ancestors 'none'" in headers()["Content-Security-Policy"]


def test_the_proxy_sets_them() -> None:
    words = PROXY.read_text()
    for name, value in headers().items():
        assert re.search(rf'{name} "?{re.escape(value)}"?\n', words), name


@pytest.mark.browser
def test_pages_draw_under_them(filled: tuple[str, dict[str, int]]) -> None:
    said: list[str] = []

    def add(route: Route) -> None:
        answer = route.fetch(max_retries=5)
        route.fulfill(response=answer, headers={**answer.headers, **headers()})

    # what a test answers itself comes from no network, from which a page may not ask this machine
    known = "--disable-features=LocalNetworkAccessChecks"
    with served(filled[0]) as dashboard, chromium(known) as browser, window(browser) as page:
        page.on("console", lambda message: said.append(message.text))
        page.route("**/*", add)
        for place, drawn in (
            ("front?search=quick", ".js-plotly-plot .main-svg"),
            ("mixers", "[data-testid=stDataFrame]"),
        ):
            page.goto(f"{dashboard.address}/{place}")
            settled(page)
            page.wait_for_selector(drawn)
    assert [text for text in said if "Content Security Policy" in text or "Refused" in text] == []
