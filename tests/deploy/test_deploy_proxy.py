"""The proxy: Caddy reads its files, and before a real dashboard it asks for a login, sets headers, closes metrics."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from deploy_files import DEPLOY, KUBERNETES, documents, security_headers
from ports import free_port

from archsearch.storage import Store

CADDY = DEPLOY / "compose" / "caddy"
HASHED = "$2a$14$TIz88mwnGH4cr3Ybe/nbye8Noll6EC/TiLQL/OyT6Sd.lksyKUOri"
"""What `caddy hash-password` makes of "secret", for which it takes a second or more."""
CLOSED = ("/_stcore/metrics", "/_stcore/health", "/healthz")


def program() -> str:
    found = shutil.which("caddy")
    if found is None:
        pytest.skip("caddy is not installed")
    return found


def readable(folder: Path, caddy: str, login: str, *, site: str | None = None) -> dict[str, str]:
    """The files of the proxy in `folder`, as this Caddy reads them; the environment that goes with them."""
    version = tuple(map(int, re.findall(r"\d+", subprocess.check_output([caddy, "version"], text=True))[:2]))
    (folder / "users.caddy").write_text(f"ada {HASHED}\n")
    for path in CADDY.iterdir():
        text = path.read_text().replace("/run/secrets/users.caddy", str(folder / "users.caddy"))
        if version < (2, 8):  # the name that the directive had
            text = text.replace("basic_auth", "basicauth")
        if site is not None:
            text = text.replace("https://{$SITE:localhost}", site)
        (folder / path.name).write_text(text)
    return {**os.environ, "LOGIN": login, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


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


def answer(port: int, path: str, **headers: str) -> HTTPResponse:
    connection = HTTPConnection("localhost", port, timeout=30)
    connection.request("GET", path, headers=headers)
    found = connection.getresponse()
    found.read()
    connection.close()
    return found


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 180
    while True:
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < limit
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


@pytest.mark.parametrize("place", ["password", "oidc", "kubernetes"])
def test_metrics_and_health_are_closed_before_anybody_is_asked(place: str, tmp_path: Path) -> None:
    """Caddy alone, with nothing behind it."""
    caddy, port = program(), free_port()
    if place == "kubernetes":
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        text = documents(KUBERNETES / "dashboard.yaml")[0]["data"]["Caddyfile"].replace(":8443", f":{port}")
    else:
        environment = readable(tmp_path, caddy, place, site=f"http://localhost:{port}")
        text = (tmp_path / "Caddyfile").read_text().replace("http_port 8080", f"http_port {free_port()}")
    (tmp_path / "Caddyfile").write_text(text)
    command = [caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process)
        assert {answer(port, path).status for path in CLOSED} == {404}
        assert answer(port, "/").status in (401, 502)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """A dashboard with the proxy before it; the proxy's port."""
    caddy, inside, outside = program(), free_port(), free_port()
    url = f"sqlite:///{tmp_path}/searches.db"
    Store.open(url).close()
    environment = readable(tmp_path, caddy, "password", site=f"http://localhost:{outside}")
    for name in ("login-password.caddy", "Caddyfile"):
        text = (tmp_path / name).read_text().replace("127.0.0.1:8501", f"127.0.0.1:{inside}")
        (tmp_path / name).write_text(text.replace("http_port 8080", f"http_port {free_port()}"))
    call = [sys.executable, "-c", "from archsearch.cli import main; main()"]
    processes = [
        subprocess.Popen([*call, "dashboard", "--port", str(inside), "--storage", url], stdout=subprocess.DEVNULL),
        subprocess.Popen(
            [caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    ]
    try:
        for port, process in zip((inside, outside), processes, strict=True):
            await_port(port, process)
        yield outside
    finally:
        for process in processes:
            process.terminate()
            process.wait()


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
