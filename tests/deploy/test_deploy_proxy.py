"""The proxy: Caddy reads its files, and before a real dashboard it asks for a login, sets headers, closes metrics."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from deploy_files import KUBERNETES, documents, security_headers
from ports import free_port
from proxies import CADDY, answer, await_port, program, proxied, readable

from archsearch.storage import Store

CLOSED = ("/_stcore/metrics", "/_stcore/health", "/healthz")


@pytest.mark.parametrize("login", ["password", "oidc"])
def test_caddy_reads_the_files_of_compose(login: str, tmp_path: Path) -> None:
    caddy = program()
    environment = readable(tmp_path, caddy, login)
    check = [caddy, "validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    done = subprocess.run(check, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_caddy_reads_the_file_of_kubernetes(tmp_path: Path) -> None:
    caddy = program()
    (tmp_path / "Caddyfile").write_text(documents(KUBERNETES / "dashboard.yaml")[0]["data"]["Caddyfile"])
    check = [caddy, "validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    done = subprocess.run(check, capture_output=True, text=True, env={**os.environ, "XDG_DATA_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_pages_may_be_framed_and_scripted_by_nobody() -> None:
    headers = security_headers((CADDY / "Caddyfile").read_text())
    policy = headers["Content-Security-Policy"]
    for rule in ("default-src 'self'", "object-src 'none'", "frame-ancestors 'none'", "base-uri 'self'"):
        assert rule in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "*" not in policy
    assert "http:" not in policy


@pytest.mark.parametrize("place", ["password", "oidc", "kubernetes"])
def test_metrics_and_health_are_closed_before_anybody_is_asked(place: str, tmp_path: Path) -> None:
    """Caddy alone, with nothing behind it."""
    with proxied(place, tmp_path) as port:
        assert {answer(port, path).status for path in CLOSED} == {404}
        assert answer(port, "/").status in (401, 502)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """A dashboard with the proxy before it; the proxy's port."""
    program()
    inside, url = free_port(), f"sqlite:///{tmp_path}/searches.db"
    Store.open(url).close()
    call = [sys.executable, "-c", "from archsearch.cli import main; main()"]
    dashboard = subprocess.Popen(
        [*call, "dashboard", "--port", str(inside), "--storage", url], stdout=subprocess.DEVNULL
    )
    try:
        await_port(inside, dashboard)
        with proxied("password", tmp_path, ports={8501: inside}) as port:
            yield port
    finally:
        dashboard.terminate()
        dashboard.wait()


@pytest.mark.slow
def test_the_proxy_before_a_dashboard(served: int) -> None:
    login = "Basic " + base64.b64encode(b"ada:secret").decode()
    wrong = "Basic " + base64.b64encode(b"ada:guess").decode()
    assert answer(served, "/").status == 401
    assert answer(served, "/", Authorization=wrong).status == 401
    page = answer(served, "/", Authorization=login)
    assert page.status == 200
    for name, value in security_headers((CADDY / "Caddyfile").read_text()).items():
        assert page.headers[name] == value.strip('"')
    for path in CLOSED:
        assert answer(served, path, Authorization=login).status == 404
    upgrade = {
        "Authorization": login,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    ours = answer_upgrade(served, upgrade | {"Origin": f"http://localhost:{served}"})
    assert ours == 101, "the page's own connection"
    assert answer_upgrade(served, upgrade | {"Origin": "http://evil.example.org"}) == 403
    assert answer_upgrade(served, {**upgrade, "Authorization": wrong}) == 401


def answer_upgrade(port: int, headers: dict[str, str]) -> int:
    connection = HTTPConnection("localhost", port, timeout=30)
    connection.request("GET", "/_stcore/stream", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status
