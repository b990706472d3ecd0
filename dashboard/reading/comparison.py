"""Reading a comparison and a sweep, kept until their searches have changed."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import streamlit as st

from archsearch.analysis.compared import Comparison
from archsearch.analysis.comparison import compare
from archsearch.analysis.sweep import Sweep, read_sweep
from archsearch.errors import SpecError
from archsearch.storage import SearchRecord, Store, TrialRecord

from ..connection import key, registry, store
from ..shown_store import ShownStore

NEEDED = ("direction", "status", "seed", "chance", "task_options")
"""What a measurement must say to be held against another, beside what every page reads."""


class Comparable:
    """A store of whose measurements those are left out that cannot be held against others."""

    def __init__(self, opened: ShownStore) -> None:
        self._opened = opened

    def search(self, name: str) -> SearchRecord:
        """The search of that name."""
        return self._opened.search(name)

    def searches(self) -> list[SearchRecord]:
        """All searches."""
        return self._opened.searches()

    def trials(self, search_id: int) -> list[TrialRecord]:
        """The trials of a search."""
        return self._opened.trials(search_id)

    def trial(self, trial_id: int) -> TrialRecord:
        """One trial with the measurements that say all of `NEEDED`."""
        found = self._opened.trial(trial_id)
        whole = tuple(one for one in found.measurements if all(one.payload.get(name) is not None for name in NEEDED))
        return replace(found, measurements=whole)


def comparison(search: SearchRecord, baseline: str | None) -> Comparison | str:
    """The comparison with a baseline, by default the search's own, or why there is none."""
    opened = store()
    return _comparison(key(), search.name, opened.revision(search.id), baseline, _store=opened)


def sweep(search: SearchRecord) -> Sweep:
    """The sweep of a search and of those of its other widths."""
    opened = store()
    others = [one for one in opened.searches() if one.name.startswith(f"{search.name}-d")]
    revisions = tuple(opened.revision(one.id) for one in (search, *others))
    return _sweep(key(), search.name, revisions, _store=opened)


@st.cache_resource(show_spinner=False, max_entries=16)
def _comparison(
    database: str, name: str, revision: str, baseline: str | None, *, _store: ShownStore
) -> Comparison | str:
    try:
        return compare(cast("Store", Comparable(_store)), name, registry(), baseline)
    except SpecError as error:
        return str(error)


@st.cache_resource(show_spinner=False, max_entries=16)
def _sweep(database: str, name: str, revisions: tuple[str, ...], *, _store: ShownStore) -> Sweep:
    return read_sweep(cast("Store", Comparable(_store)), name, registry())
