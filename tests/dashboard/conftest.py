"""A filled database, and the dashboard over it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import streamlit as st
from dashboard_samples import fill
from streamlit.components.v2 import manifest_scanner

sys.path.append(str(Path(__file__).parents[1] / "bench"))  # whose sample rows are shared
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
"""A server reads once what is installed; a page under test would for every run, which is half of its time."""


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int]]:
    """The URL of a database with every sample, and the trials of "quick" by a short name; to be read only."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard')}/searches.db"
    return url, fill(url)


@pytest.fixture
def url(filled: tuple[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> str:
    """The filled database, as the one that the dashboard reads."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", filled[0])
    return filled[0]


@pytest.fixture
def trials(filled: tuple[str, dict[str, int]]) -> dict[str, int]:
    """Trials of "quick" by a short name."""
    return filled[1]


@pytest.fixture
def empty_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path at which there is no database yet, as the one that the dashboard reads."""
    url = f"sqlite:///{tmp_path}/searches.db"
    monkeypatch.setenv("ARCHSEARCH_STORAGE", url)
    return url


@pytest.fixture(autouse=True)
def _no_caches() -> Iterator[None]:
    yield
    st.cache_data.clear()
    st.cache_resource.clear()
