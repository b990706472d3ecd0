"""Fixtures that every test may use."""

from __future__ import annotations

import pytest

from archsearch.registry import Registry, load_registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry of the built-in plugins."""
    return load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,tasks"})
