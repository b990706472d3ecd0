"""The server reads ahead, so that the first viewer does not wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from archsearch_dashboard import serve
from archsearch_dashboard.connection import store
from archsearch_dashboard.reading import answers
from dashboard_samples import fill


def test_the_script_that_streamlit_runs_is_there() -> None:
    assert serve.SCRIPT.is_file()


def test_what_is_read_ahead_is_what_pages_read(url: str) -> None:
    assert serve.read_ahead(seconds=3600) == len(store().searches())
    newest = store().searches()[-1]
    kept = answers.hypervolume(newest)
    assert kept is answers.hypervolume(newest)
    assert serve.read_ahead(seconds=-1) == 0


def test_a_database_that_is_not_there_is_left_to_the_page(empty_url: str) -> None:
    assert serve.read_ahead() == 0
    fill(empty_url)
    assert serve.read_ahead(seconds=3600) > 1


def test_a_database_that_takes_long_keeps_nobody_from_the_door(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, listens = Event(), Event()

    def read_ahead() -> int:
        begun.set()
        assert listens.wait(60)
        return 0

    monkeypatch.setattr(serve, "read_ahead", read_ahead)
    monkeypatch.setattr(serve, "READ_AHEAD_SECONDS", 0.0)
    monkeypatch.setattr(serve.cli, "main", lambda **_: listens.set())
    serve.main()
    assert begun.wait(60)
    assert listens.is_set()


def test_nothing_is_imported_from_the_folder_it_is_started_in(url: str, tmp_path: Path) -> None:
    """Neither when the server starts nor when its script runs: ``-P`` keeps the folder away, and nothing adds it."""
    names = {f"{name}.py" for name in ("streamlit", "pandas", "plotly", "archsearch", "archsearch_dashboard", "script")}
    for name in names:
        (tmp_path / name).write_text(f"from pathlib import Path\nPath('taken-{name}').write_text('')\n")
    code = (
        "import sys\nfrom unittest import mock\nfrom streamlit.web import cli\n"
        "with mock.patch.object(cli, 'main') as started:\n"
        "    from archsearch_dashboard import serve\n    serve.main()\n"
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file(str(serve.SCRIPT), default_timeout=60).run()\n"
        "assert not app.exception and app.title[0].value == 'Searches', app\n"
        "assert '--client.disableDataExport=true' in started.call_args.kwargs['args']\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == names, done.stderr
    assert done.returncode == 0, done.stderr
