"""What the environment says of a Ray cluster: the token that it is asked with, without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def token_fault(environ: Mapping[str, str]) -> str:
    """Why the token that ``RAY_AUTH_MODE=token`` asks for cannot be read here, with the remedy; "" where it can be.

    Ray takes ``RAY_AUTH_TOKEN``, else the file ``RAY_AUTH_TOKEN_PATH``, else ``~/.ray/auth_token``.
    """
    if environ.get("RAY_AUTH_MODE", "").lower() != "token" or environ.get("RAY_AUTH_TOKEN"):
        return ""
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environ.get("HOME") or "/") / ".ray" / "auth_token"
    remedy = "name the cluster's token file in RAY_AUTH_TOKEN_PATH, or make one with `ray get-auth-token --generate`"
    try:
        held = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return f"RAY_AUTH_MODE is token, and the token file {path} cannot be read ({error.strerror}): {remedy}"
    return "" if held else f"RAY_AUTH_MODE is token, and the token file {path} is empty: {remedy}"
