"""``dashboard`` and ``report``: what is started, on what address, and what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from archsearch.cli import dashboard as command
from archsearch.errors import ArchsearchError, StorageError

Run = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would have been started: arguments and environment."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def record(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        assert program == arguments[0] == sys.executable
        calls.append((arguments[1:], environment))

    monkeypatch.setattr("os.execve", record)
    return calls


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hides an installed package."""
    real = importlib.util.find_spec

    def hide(name: str) -> None:
        def find(wanted: str, *rest: Any) -> Any:
            return None if wanted == name else real(wanted, *rest)

        for module in ("dashboard", "report"):
            monkeypatch.setattr(f"archsearch.cli.{module}.find_spec", find)

    return hide


def test_it_listens_on_loopback_and_tells_no_errors(
    run: Run, trials: dict[str, int], url: str, started: list[tuple[list[str], dict[str, str]]]
) -> None:
    result = run("dashboard")
    assert result.exit_code == 0, result.output
    assert f"{url} at http://127.0.0.1:8501" in result.stdout
    ((arguments, environment),) = started
    assert arguments[:3] == ["-P", "-m", "archsearch_dashboard.serve"]
    for flag in (
        "--server.address=127.0.0.1",
        "--server.port=8501",
        "--server.enableXsrfProtection=true",
        "--server.enableCORS=true",
        "--client.showErrorDetails=none",
        "--browser.gatherUsageStats=false",
        "--server.enableAgentApi=false",
        "--server.allowedHosts=localhost",
        "--server.allowedHosts=127.0.0.1",
    ):
        assert flag in arguments
    assert environment["ARCHSEARCH_STORAGE"] == url
    assert not any("searches.db" in argument for argument in arguments)


SERVER = "postgresql://me:canary@db.example.org/searches"
TAKES_OVER = """
import os, sys
from archsearch.cli.dashboard import name_database
environment = dict(os.environ)
name_database(environment, sys.argv[1], given=sys.argv[1])
os.execve(sys.executable, [sys.executable, "-P", "-c", sys.argv[2]], environment)
"""
ASKS = """
import os, subprocess, sys
from archsearch.storage import storage_url
twice = "from archsearch.storage import storage_url; print(storage_url())"
print(storage_url(), storage_url(), "canary" in str(os.environ), flush=True)
subprocess.run([sys.executable, "-P", "-c", twice], check=True)
"""


def test_a_password_goes_on_by_a_file_of_its_own() -> None:
    for url in (SERVER, SERVER.replace("canary", "canary in a cage")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", TAKES_OVER, url, ASKS], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{url} {url} False\n{url}\n"


def test_a_file_that_names_the_database_is_read_there_again(tmp_path: Path) -> None:
    file = {"ARCHSEARCH_STORAGE_FILE": str(tmp_path / "storage")}
    environment = dict(file)
    command.name_database(environment, SERVER, given=None)
    assert environment == file
    command.name_database(environment, SERVER, given=SERVER)
    assert environment["ARCHSEARCH_STORAGE_FILE"] != file["ARCHSEARCH_STORAGE_FILE"]
    assert Path(environment["ARCHSEARCH_STORAGE_FILE"]).stat().st_mode & 0o077 == 0
    environment = {"ARCHSEARCH_STORAGE": SERVER}
    command.name_database(environment, SERVER, given=None)
    assert list(environment) == ["ARCHSEARCH_STORAGE_FILE"]


def test_address_port_and_host_names(
    run: Run, trials: dict[str, int], started: list[tuple[list[str], dict[str, str]]]
) -> None:
    run("dashboard", "--host", "0.0.0.0", "--port", "8601", "--allow-host", "lab.example.org", "--insecure")
    ((arguments, _),) = started
    assert "--server.address=0.0.0.0" in arguments
    assert "--server.port=8601" in arguments
    assert "--server.allowedHosts=lab.example.org" in arguments
    assert "--server.allowedHosts=*" not in arguments


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without secrets."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "lab.example.org"])
@pytest.mark.parametrize("secrets", [None, "[archsearch]\nviewers = []\n", "[auth"], ids=["none", "other", "broken"])
def test_beyond_this_machine_it_wants_a_login(
    run: Run,
    trials: dict[str, int],
    started: list[tuple[list[str], dict[str, str]]],
    home: Path,
    host: str,
    secrets: str | None,
) -> None:
    write_secrets(home, secrets)
    error = run("dashboard", "--host", host).exception
    assert isinstance(error, ArchsearchError)
    assert f"--host {host} shows everything to whoever reaches the port, and no login is configured" in str(error)
    assert "--insecure" in str(error)
    assert not started


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_this_machine_it_wants_none(
    run: Run, trials: dict[str, int], started: list[tuple[list[str], dict[str, str]]], home: Path, host: str
) -> None:
    assert run("dashboard", "--host", host).exit_code == 0
    assert len(started) == 1


@pytest.mark.parametrize("where", ["home", "folder"])
def test_a_login_opens_it_to_others(
    run: Run,
    trials: dict[str, int],
    started: list[tuple[list[str], dict[str, str]]],
    home: Path,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_secrets(home if where == "home" else tmp_path / "here", "[auth]\ncookie_secret = 'x'\n")
    assert run("dashboard", "--host", "0.0.0.0").exit_code == 0
    assert len(started) == 1


def write_secrets(folder: Path, text: str | None) -> None:
    """Streamlit's secrets of a folder; None for no file."""
    if text is not None:
        (folder / ".streamlit").mkdir()
        (folder / ".streamlit" / "secrets.toml").write_text(text)


def test_pages_submit_only_where_both_are_given(
    run: Run,
    trials: dict[str, int],
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(command.SUBMIT_TO, "http://stale.example.org:8265")
    for given in (["--allow-submit"], ["--address", "http://127.0.0.1:8265"]):
        error = run("dashboard", *given).exception
        assert isinstance(error, ArchsearchError)
        assert "--allow-submit and --address URL go together" in str(error)
    assert not started
    run("dashboard")
    run("dashboard", "--allow-submit", "--address", "http://127.0.0.1:8265")
    environments = [environment for _, environment in started]
    assert [one.get(command.SUBMIT_TO) for one in environments] == [None, "http://127.0.0.1:8265"]


def test_a_header_is_believed_only_where_an_option_says_so(
    run: Run,
    trials: dict[str, int],
    started: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(command.USER_HEADER, "X-Stale")
    assert run("dashboard").exit_code == 0
    assert run("dashboard", "--user-header", "X-Archsearch-User").exit_code == 0
    assert [environment.get(command.USER_HEADER) for _, environment in started] == [None, "X-Archsearch-User"]
    for name in ("Cookie", "X_User", "X-User\n", ""):
        error = run("dashboard", "--user-header", name).exception
        assert isinstance(error, ArchsearchError)
        assert "name a header that the proxy alone sets" in str(error)
    assert len(started) == 2


def test_every_flag_is_one_that_streamlit_knows() -> None:
    from streamlit import config

    flags = command.command("127.0.0.1", 8501, [])[3:]
    known = config.get_config_options()
    assert not [flag for flag in flags if flag.removeprefix("--").partition("=")[0] not in known]


@pytest.mark.parametrize("package", ["streamlit", "plotly"])
def test_without_the_extra_it_says_what_to_install(
    run: Run,
    trials: dict[str, int],
    without: Callable[[str], None],
    package: str,
    started: list[tuple[list[str], dict[str, str]]],
) -> None:
    without(package)
    error = run("dashboard").exception
    assert isinstance(error, ArchsearchError)
    assert str(error) == f"the dashboard needs {package}: pip install 'archsearch[dashboard]'"
    assert not started


def test_no_database_is_told_before_anything_is_started(
    run: Run, started: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    error = run("dashboard").exception
    assert isinstance(error, StorageError)
    assert "there is no database" in str(error)
    assert not started
    assert list(tmp_path.iterdir()) == []


def test_report_writes_one_file(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    result = run("report", "quick", "-o", "front.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "front.html").read_text()
    assert "Front of quick" in text
    assert "linear(update=delta) full" in text


def test_report_says_where_it_cannot_write(run: Run, trials: dict[str, int]) -> None:
    error = run("report", "quick", "-o", "nowhere/front.html").exception
    assert isinstance(error, ArchsearchError)
    assert "cannot write nowhere/front.html" in str(error)


def test_report_needs_plotly(run: Run, trials: dict[str, int], without: Callable[[str], None]) -> None:
    without("plotly")
    error = run("report", "quick", "-o", "front.html").exception
    assert isinstance(error, ArchsearchError)
    assert "pip install 'archsearch[dashboard]'" in str(error)
