"""A store in a new SQLite file, or with the marker `postgres` in a fresh PostgreSQL database, and ways to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import quick_databases
from alembic import command
from database_kinds import POSTGRESQL, SQLITE
from storage_samples import OBJECTIVES

from archsearch.storage import NewTrial, Store


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are made by the migrations, as users' are."""
    monkeypatch.setattr(command, "upgrade", quick_databases.migrate)


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that a search may be written to; a test of one kind alone is marked by one of `database_kinds`."""
    return _url(request, "postgres_url", tmp_path)


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any tables."""
    return _url(request, "blank_postgres_url", tmp_path)


def _url(request: pytest.FixtureRequest, fixture: str, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/searches.db"
    server: str = request.getfixturevalue(fixture)
    return server


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


@pytest.fixture
def search_id(store: Store) -> int:
    return store.create_search(
        "first", {"seed": 0}, OBJECTIVES, plugins=[("linear", "archsearch", "0.1.0"), ("full", "archsearch", "0.1.0")]
    )


@pytest.fixture
def add_trial(store: Store, search_id: int) -> Callable[..., int]:
    def add(**changes: Any) -> int:
        values: dict[str, Any] = {
            "kind": "search",
            "state": "running",
            "arch": {"layers": ["full"]},
            "digest": "d0",
            "pattern": "full*2",
            "params": {"unit": "full"},
            "seeds": [0, 1],
            "costs": {"state_bytes@32768": 4096.0},
            "violations": {},
        }
        return store.add_trial(search_id, NewTrial(**{**values, **changes}))

    return add
