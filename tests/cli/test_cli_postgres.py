"""The command line on PostgreSQL: what a role that may only read is shown, and how it is turned away."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import fill
from postgres_server import PostgresServer
from sqlalchemy.engine import make_url
from typer.testing import Result

from archsearch.cli import main
from archsearch.storage import Store

pytestmark = pytest.mark.postgres
Run = Callable[..., Result]
SPEC = """
name = "another"
[model]
d_model = 16
n_layers = 2
[space]
mixers = ["full", "sliding"]
[[tasks]]
name = "mqar"
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
"""


@pytest.fixture
def reader_url(postgres: PostgresServer, postgres_url: str) -> str:
    """The filled database by the role that reads."""
    with Store.open(postgres_url) as store:
        fill(store)
    return postgres.reader_url(make_url(postgres_url).database or "")


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """The exit status of ``archsearch`` as a shell sees it."""
    monkeypatch.setattr(sys, "argv", ["archsearch", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_what_is_shown_is_what_sqlite_shows(run: Run, trials: dict[str, int], url: str, reader_url: str) -> None:
    for words in (
        ("searches",),
        ("trials", "quick"),
        ("pareto", "quick"),
        ("show", str(trials["mixed"])),
        ("db", "current"),
    ):
        found = [run(*words, "--json", "--storage", storage) for storage in (url, reader_url)]
        assert [result.exit_code for result in found] == [0, 0], found[1].exception
        in_file, on_server = (_without_moments(json.loads(result.stdout)) for result in found)
        assert on_server == in_file, words
        assert run(*words, "--storage", reader_url).exit_code == 0


def _without_moments(data: Any) -> Any:
    """`data` without what differs between two databases that were filled one after the other."""
    if isinstance(data, dict):
        return {key: _without_moments(value) for key, value in data.items() if not key.endswith(("_at", "database"))}
    return [_without_moments(value) for value in data] if isinstance(data, list) else data


def test_a_report_is_written(run: Run, reader_url: str, tmp_path: Path) -> None:
    assert run("report", "quick", "-o", "front.html", "--storage", reader_url).exit_code == 0
    text = (tmp_path / "front.html").read_text()
    assert "Front of quick" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("words", [("run", "another.toml"), ("resume", "quick", "--retrain")], ids=" ".join)
def test_writing_is_one_sentence_and_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reader_url: str,
    tmp_path: Path,
    words: tuple[str, ...],
) -> None:
    (tmp_path / "another.toml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    assert ended(monkeypatch, *words, "--storage", reader_url) == 4
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert "permission denied for table search: use a role that has this right, or name another database" in line
    assert "s3cret" not in line + said.out


@pytest.mark.parametrize("words", [("searches",), ("db", "current"), ("db", "upgrade")], ids="-".join)
def test_a_server_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "postgresql://me:s3cret@127.0.0.1:1/searches")
    assert ended(monkeypatch, *words) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "postgresql://me:***@127.0.0.1:1/searches: connection failed" in line
    assert "try again" in line
    assert "s3cret" not in line


def test_tables_that_are_made_later_can_be_read(run: Run, postgres: PostgresServer, blank_postgres_url: str) -> None:
    reader = postgres.reader_url(make_url(blank_postgres_url).database or "")
    assert "run `archsearch db upgrade`" in str(run("searches", "--storage", reader).exception)
    assert "permission denied for schema public" in str(run("db", "upgrade", "--storage", reader).exception)
    assert run("db", "upgrade", "--storage", blank_postgres_url).exit_code == 0
    assert "has no search yet" in run("searches", "--storage", reader).stdout
