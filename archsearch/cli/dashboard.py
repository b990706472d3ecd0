"""``archsearch dashboard``: the pages over a database, served by Streamlit on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from archsearch.cli.output import StorageOption, console

LOOPBACK = "127.0.0.1"
PORT = 8501


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
) -> None:
    """Shows searches, fronts and architectures in a browser.

    Reads the database and never writes to it. On another address than the loopback one, anybody who reaches the port
    reads along: docs/dashboard.md says how to ask for a login.
    """
    from archsearch import storage as database

    needed = ("streamlit", "plotly", "archsearch_dashboard")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        from archsearch.errors import ArchsearchError

        raise ArchsearchError(f"the dashboard needs {missing[0]}: pip install 'archsearch[dashboard]'")
    url = database.storage_url(storage)
    database.Store.open(url, read_only=True).close()
    shown = f"[{host}]" if ":" in host else host
    console().print(f"{database.hide(url)} at http://{shown}:{port} (Ctrl-C ends it)", soft_wrap=True)
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url}
    os.execve(sys.executable, [sys.executable, *command(host, port, allow_host or [])], environment)


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
