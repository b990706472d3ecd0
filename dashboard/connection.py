"""The connection: one read-only store and one registry for all viewers of this process."""

from __future__ import annotations

import streamlit as st

from archsearch.registry import Registry, load_registry
from archsearch.storage import hide, identity, storage_url

from .shown_store import ShownStore


def store() -> ShownStore:
    """The database that ``ARCHSEARCH_STORAGE`` names, opened read-only; opened anew when its file was replaced.

    Raises `StorageError` when there is none.
    """
    url = storage_url()
    return _store(url, identity(url))


def key() -> str:
    """What tells this database from another one, and from the file that stood there before."""
    url = storage_url()
    return f"{hide(url)} {identity(url)}"


def forget() -> None:
    """Has the next `store` open the database anew."""
    _store.clear()


@st.cache_resource(show_spinner=False, max_entries=2, on_release=ShownStore.close)
def _store(url: str, file: str) -> ShownStore:
    return ShownStore.open(url, read_only=True)


@st.cache_resource(show_spinner=False)
def registry() -> Registry:
    """Every installed plugin, loaded once."""
    return load_registry()
