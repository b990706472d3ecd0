"""Fixtures that every test may use, and the options of the tests on a card."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from postgres_server import PostgresServer, postgres_server

from archsearch.registry import Registry, load_registry

pytest_plugins = ["archsearch.testing.recording"]

os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: trials would wait for the tests beside them
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which is later than this
    if find_spec("triton") is not None:
        import quick_interpreter

        quick_interpreter.install()
if find_spec("alembic") is not None:  # a machine with a card may have no SQL at all
    import quick_databases

    quick_databases.install()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported lives to the end: the collector of cycles need not look at it after every few objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gpu", "tests on a card (-m gpu)")
    group.addoption(
        "--interpreted",
        action="store_true",
        help="Run them on the CPU in float32 under Triton's interpreter: tries the tests, proves nothing.",
    )


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry of the built-in plugins."""
    return load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,tasks"})


@pytest.fixture(scope="session")
def installed() -> Registry:
    """Every plugin of this project."""
    return load_registry()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for the tests marked `postgres`."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database with the tables and nothing in them, to be copied."""
    from archsearch.storage import upgrade

    name = postgres.new_database()
    upgrade(postgres.url(name))
    return name


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database with the tables."""
    name = postgres.new_database(postgres_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def blank_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database that holds nothing."""
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop_database(name)
