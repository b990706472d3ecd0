"""Heartbeats at another time than now."""

from __future__ import annotations

from datetime import timedelta

from archsearch.storage import Store
from archsearch.storage.tables import Search


def beat(store: Store, search_id: int, away: timedelta) -> None:
    """A heartbeat of a search that seems so long ago (less than zero), or ahead."""
    store.heartbeat(search_id)
    move(store, search_id, away)


def move(store: Store, search_id: int, away: timedelta) -> None:
    """Has the last heartbeat of a search seem earlier (less than zero) or later."""
    with store._writing() as session:
        row = session.get_one(Search, search_id)
        row.heartbeat_at += away
