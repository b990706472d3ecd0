"""Caddy with the files of deploy/, as the tests start it, and what it answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from deploy_files import DEPLOY, KUBERNETES, documents
from ports import free_port

CADDY = DEPLOY / "compose" / "caddy"
HASHED = "$2a$14$TIz88mwnGH4cr3Ybe/nbye8Noll6EC/TiLQL/OyT6Sd.lksyKUOri"
"""What `caddy hash-password` makes of "secret", for which it takes a second or more."""


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


@contextmanager
def proxied(place: str, folder: Path, *, ports: dict[int, int] | None = None, hashed: str = HASHED) -> Iterator[int]:
    """The port of a Caddy that runs with the files of a `place`: "password", "oidc" or "kubernetes". `ports` are where
    those behind it listen in place of 8501 and 4180."""
    caddy, port = program(), free_port()
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    if place == "kubernetes":
        text = documents(KUBERNETES / "dashboard.yaml")[0]["data"]["Caddyfile"].replace(":8443", f":{port}")
        (folder / "Caddyfile").write_text(text)
    else:
        environment = readable(folder, caddy, place, site=f"http://localhost:{port}")
        (folder / "users.caddy").write_text(f"ada {hashed}\n")
    for path in (*folder.glob("*.caddy"), folder / "Caddyfile"):
        text = path.read_text().replace("http_port 8080", f"http_port {free_port()}")
        for known, used in (ports or {}).items():
            text = text.replace(f"127.0.0.1:{known}", f"127.0.0.1:{used}")
        path.write_text(text)
    command = [caddy, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()
