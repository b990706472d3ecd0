"""What is known of a Ray cluster without Ray: where it listens, and the token that it is asked with."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from archsearch.secrets_file import exposed
from archsearch.waiting import within

CONNECT_SECONDS = 5.0
"""How long a port may take to answer."""

_MODES = ("token", "disabled", "")
_REMEDY = "give the address that `ray start --head` printed, as 10.0.0.1:6379"


def address_fault(address: str) -> str:
    """Why no Ray cluster can be reached at `address` (``host:port``, or with a scheme), with the remedy; "" where its
    port answers in time, and for "auto"."""
    if address.strip() in ("auto", "local"):
        return ""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f'"{address}" is no address of a Ray cluster ({error}): {_REMEDY}'
    if parts.scheme in ("http", "https"):
        return f'"{address}" is the URL of a Ray dashboard, which takes jobs: `archsearch submit SPEC`. Here {_REMEDY}'
    if not host or port is None:
        return f'"{address}" is no address of a Ray cluster, for it has no host and port: {_REMEDY}'
    try:
        within(CONNECT_SECONDS, lambda: socket.create_connection((host, port), timeout=CONNECT_SECONDS).close())
    except (OSError, OverflowError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        why = f"no answer in {CONNECT_SECONDS:.0f} s" if isinstance(error, TimeoutError) else cause
        return f'nothing listens at "{address}" ({why}): start the cluster, or {_REMEDY}'
    return ""


def mode_fault(environ: Mapping[str, str]) -> str:
    """Why ``RAY_AUTH_MODE`` is none of Ray's, with the remedy; "" where it is. Ray takes any other word for "disabled",
    and says nothing."""
    mode = environ.get("RAY_AUTH_MODE", "")
    if mode.lower() in _MODES:
        return ""
    return f'RAY_AUTH_MODE is "{mode}", by which Ray asks nobody for a token: set it to token, or to disabled'


def token_fault(environ: Mapping[str, str]) -> str:
    """Why the token that ``RAY_AUTH_MODE=token`` asks for cannot be read here, or why the mode is none of Ray's, with
    the remedy; "" where nothing is wrong.

    Ray takes ``RAY_AUTH_TOKEN``, else the file ``RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``.
    """
    path = _token_file(environ)
    if path is None:
        return mode_fault(environ)
    remedy = "name the cluster's token file in RAY_AUTH_TOKEN_PATH, or make one with `ray get-auth-token --generate`"
    try:
        held = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return f"RAY_AUTH_MODE is token, and the token file {path} cannot be read ({error.strerror}): {remedy}"
    return "" if held else f"RAY_AUTH_MODE is token, and the token file {path} is empty: {remedy}"


def token_exposed(environ: Mapping[str, str]) -> str:
    """Why the token of Ray must not be used as it is kept, with the remedy: whoever reads it runs code on the cluster.
    "" where only its owner can."""
    path = _token_file(environ)
    fault = "" if path is None else exposed(path)
    return f"Ray's token file {fault}" if fault else ""


def _token_file(environ: Mapping[str, str]) -> Path | None:
    """The file that Ray reads its token from, None where it needs none."""
    if environ.get("RAY_AUTH_MODE", "").lower() != "token" or environ.get("RAY_AUTH_TOKEN"):
        return None
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path(environ.get("HOME") or "/") / ".ray" / "auth_token"
