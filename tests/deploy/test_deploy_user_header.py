"""Who asks, as the proxy says it to the dashboard: by the login alone, whatever a browser sends."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from deploy_files import DEPLOY
from proxies import proxied

HEADER = "X-Archsearch-User"
QUICK = "$2b$04$TIz88mwnGH4cr3Ybe/nbyeXZeSmjziwnlFiCriKq43Ix0mD7g1bHq"
"""The hash of "secret" with few rounds."""
UNFILLED = "{http.reverse_proxy.header.X-Auth-Request-Email}"
ADA = "Basic " + base64.b64encode(b"ada:secret").decode()
FORGED = {
    "none": [],
    "once": [(HEADER, "mallory")],
    "small": [(HEADER.lower(), "mallory")],
    "twice": [(HEADER, "mallory"), (HEADER, "eve")],
    "hop": [(HEADER, "mallory"), ("Connection", HEADER)],
    "of-the-login": [("X-Auth-Request-Email", "mallory"), ("X-Forwarded-User", "mallory")],
}


class Echo(BaseHTTPRequestHandler):
    """In the dashboard's place: tells what it was sent by that header."""

    def do_GET(self) -> None:
        said = json.dumps(self.headers.get_all(HEADER) or []).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *said: object) -> None:
        """Nothing."""


def login(email: str | None) -> type[BaseHTTPRequestHandler]:
    """In the place of oauth2-proxy, which knows who asks by a cookie."""

    class Login(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(202 if self.path == "/oauth2/auth" else 500)
            if email is not None:
                self.send_header("X-Auth-Request-Email", email)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Nothing."""

    return Login


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def told(port: int, sent: list[tuple[str, str]]) -> list[str]:
    """What reaches the dashboard by the header, of a request with these."""
    connection = HTTPConnection("localhost", port, timeout=30)
    connection.putrequest("GET", "/")
    for name, value in [("Authorization", ADA), *sent]:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 200
    found: list[str] = json.loads(answer.read())
    connection.close()
    return found


@pytest.mark.parametrize(
    ("place", "email", "expected"),
    [
        ("password", None, ["ada"]),
        ("oidc", "ada@example.org", ["ada@example.org"]),
        ("kubernetes", "ada@example.org", ["ada@example.org"]),
        ("oidc", None, []),
    ],
    ids=["password", "oidc", "kubernetes", "nobody"],
)
def test_the_login_alone_says_who_asks(place: str, email: str | None, expected: list[str], tmp_path: Path) -> None:
    with ExitStack() as stack:
        ports = {8501: stack.enter_context(listening(Echo)), 4180: stack.enter_context(listening(login(email)))}
        port = stack.enter_context(proxied(place, tmp_path, ports=ports, hashed=QUICK))
        found = {name: told(port, sent) for name, sent in FORGED.items()}
    if expected:
        assert found.pop("hop") in (expected, []), "who has the header dropped is nobody"
        assert found == dict.fromkeys(found, expected)
    else:  # an older Caddy passes on its own placeholder, which the dashboard takes for nobody
        assert {name for said in found.values() for name in said} <= {"", UNFILLED}


def test_the_header_that_is_believed_is_the_one_that_is_set() -> None:
    for path in ("compose/submit.yaml", "kubernetes-submit/dashboard.yaml"):
        words = re.findall(r"^\s+- (\S+)$", (DEPLOY / path).read_text(), re.M)
        assert words[words.index("--user-header") + 1] == HEADER
