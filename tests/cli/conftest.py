"""A filled database and the command line over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import fill
from typer.testing import CliRunner, Result

from archsearch.cli import app
from archsearch.storage import Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/searches.db"


@pytest.fixture
def trials(url: str) -> dict[str, int]:
    with Store.open(url) as store:
        return fill(store)


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the database; errors of the package come out as they are."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", url)
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, list(words), catch_exceptions=True)

    return invoke
