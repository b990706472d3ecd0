"""A fake cluster, a spec, and rows of jobs in a file of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs_fakes import SPEC, FakeClient

from archsearch.jobs import Cluster, Rows, open_rows

URL = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own rows of jobs lie."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ARCHSEARCH_STORAGE", raising=False)
    return tmp_path / "state"


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def cluster(client: FakeClient) -> Cluster:
    return Cluster(URL, connect=lambda address: client)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "it's a spec.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def rows() -> Iterator[Rows]:
    with open_rows("sqlite:///archsearch.db", pytest.fail) as opened:
        yield opened
