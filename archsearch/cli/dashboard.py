"""``archsearch dashboard``: the pages over a database, served by Streamlit on this machine."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.output import StorageOption, console

LOOPBACK = "127.0.0.1"
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_OF_BROWSERS = {"accept", "authorization", "connection", "cookie", "host", "origin", "referer", "upgrade", "user-agent"}
PORT = 8501
SUBMIT_TO = "ARCHSEARCH_SUBMIT_TO"
"""Tells the pages which cluster they may send searches to."""
USER_HEADER = "ARCHSEARCH_USER_HEADER"
"""Tells the pages which header of a request they may believe."""

AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", help="With --allow-submit: URL of the cluster's Ray dashboard."),
]
UserHeaderOption = Annotated[
    str | None,
    typer.Option(
        "--user-header",
        metavar="NAME",
        help="Believe this header of a request about who asks: only where nobody but a proxy that sets it, whatever a "
        "browser sent, reaches the port.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("dashboard")(dashboard)


def dashboard(
    storage: StorageOption = None,
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = PORT,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; the loopback one by default.")
    ] = LOOPBACK,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Another host name by which browsers may ask, beside the loopback ones; may be repeated.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond this machine without a login, as behind a proxy that asks for one."
        ),
    ] = False,
    allow_submit: Annotated[
        bool,
        typer.Option("--allow-submit", help="Show the page Jobs, by which viewers send searches to a cluster."),
    ] = False,
    address: AddressOption = None,
    user_header: UserHeaderOption = None,
) -> None:
    """Shows searches, fronts and architectures in a browser.

    Reads the database and never writes to it. Beyond this machine it asks for a login: docs/dashboard.md says how.
    """
    from archsearch import storage as database

    told = {**submit_address(allow_submit, address), **trusted_header(user_header)}
    if not insecure:
        refuse_open_door(host)
    needed = ("streamlit", "plotly", "archsearch_dashboard")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        from archsearch.errors import ArchsearchError

        raise ArchsearchError(f"the dashboard needs {missing[0]}: pip install 'archsearch[dashboard]'")
    url = database.storage_url(storage)
    database.Store.open(url, read_only=True).close()
    shown = f"[{host}]" if ":" in host else host
    console().print(f"{database.hide(url)} at http://{shown}:{port} (Ctrl-C ends it)", soft_wrap=True)
    kept = {name: value for name, value in os.environ.items() if name not in (SUBMIT_TO, USER_HEADER)}
    environment = {**kept, **told}
    name_database(environment, url, given=storage)
    os.execve(sys.executable, [sys.executable, *command(host, port, allow_host or [])], environment)


def submit_address(allow_submit: bool, address: str | None) -> dict[str, str]:
    """The variable that lets the pages submit; empty where they may not. Raises `ArchsearchError` for half of it."""
    from archsearch.errors import ArchsearchError

    if allow_submit != (address is not None):
        raise ArchsearchError(
            "--allow-submit and --address URL go together: the pages send searches to one cluster, by the URL of its "
            "Ray dashboard, as http://127.0.0.1:8265"
        )
    return {SUBMIT_TO: address} if address is not None else {}


def trusted_header(name: str | None) -> dict[str, str]:
    """The variable that lets the pages believe a header; raises `ArchsearchError` for what no proxy would set."""
    from archsearch.errors import ArchsearchError

    if name is None:
        return {}
    if not _HEADER.fullmatch(name) or name.lower() in _OF_BROWSERS:
        raise ArchsearchError(
            f'--user-header "{name}": name a header that the proxy alone sets, of letters, digits and "-", as '
            "X-Archsearch-User"
        )
    return {USER_HEADER: name}


def name_database(environment: dict[str, str], url: str, *, given: str | None) -> None:
    """Has a process of that environment read the database at `url`; a password is in a file, not in the environment.

    A file that names the database already is read there again, unless another database was `given`.
    """
    from archsearch.secrets_file import handed_on
    from archsearch.storage import hide
    from archsearch.storage.url import FILE_VARIABLE, VARIABLE

    if hide(url) == url:
        environment[VARIABLE] = url
    elif given or environment.get(VARIABLE):
        environment.pop(VARIABLE, None)
        environment[FILE_VARIABLE] = str(handed_on(url))


def refuse_open_door(host: str) -> None:
    """Raises `ArchsearchError` for an address beyond this machine while no login is configured."""
    from archsearch.errors import ArchsearchError

    if is_loopback(host) or asks_for_login():
        return
    raise ArchsearchError(
        f"--host {host} shows everything to whoever reaches the port, and no login is configured: write [auth] into "
        ".streamlit/secrets.toml (docs/dashboard.md), or give --insecure where a proxy in front asks for a login"
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def asks_for_login() -> bool:
    """Whether Streamlit's secrets, of the current folder or of the user, have a section ``[auth]``."""
    for folder in (Path.cwd(), Path.home()):
        try:
            if "auth" in tomllib.loads((folder / ".streamlit" / "secrets.toml").read_text(encoding="utf-8")):
                return True
        except (OSError, ValueError):  # not there, or nothing that can be read: then it asks for nothing
            continue
    return False


def command(host: str, port: int, allowed: list[str]) -> list[str]:
    """The arguments with which Python serves the pages.

    The database's URL, which may hold a password, is not in them, and modules of the current folder are not imported.
    """
    hosts = dict.fromkeys(["localhost", LOOPBACK, "::1", host, *allowed])
    options = {
        "server.address": host,
        "server.port": str(port),
        "server.headless": "true",
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "server.enableStaticServing": "false",
        "server.enableAgentApi": "false",
        "server.fileWatcherType": "none",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "viewer",
        "browser.gatherUsageStats": "false",
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#56B4E9",
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    allowing = [f"--server.allowedHosts={name}" for name in hosts]
    return ["-P", "-m", "archsearch_dashboard.serve", *flags, *allowing]
