"""Placement: where a search's own process may run, and whether its database is reached from there.

Without a demand it runs on the head node, which is the one that is asked. With one, Ray takes any node with room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.errors import StorageError
from archsearch.jobs.cluster import asks
from archsearch.storage import Store, hide, storage_url
from archsearch.storage.url import read_url, sqlite_path

ELSEWHERE = "database_fault"
"""Key of what a node says of the database."""


def has_room(resources: Mapping[str, float], cpus: float, gpus: float) -> bool:
    """Whether a node of these resources could hold a process that asks for so much, once nothing else runs there."""
    return resources.get("CPU", 0.0) >= cpus and resources.get("GPU", 0.0) >= gpus


def database_fault(storage: str | None, spec: str | None) -> str:
    """Why a search on this node, which is not the head, would not write to the head's database; "" where it would."""
    try:
        url = storage_url(storage, spec=spec)
        if sqlite_path(read_url(url)) is not None:
            return f"{hide(url)} would be another file than on the head node"
        Store.open(url, create=False).close()
    except StorageError as error:
        return str(error)
    return ""


def placement_faults(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> Iterator[str]:
    """A sentence for each node on which the search's own process may start and would not reach the database."""
    for node in nodes:
        if node.get(ELSEWHERE):
            yield (
                f"the search's own process asks for {asks(cpus, gpus)} and may start on node {node['host']}, where "
                f"{node[ELSEWHERE]}: name one database in the same way on every node, or leave out --cpus and --gpus, "
                "so that it runs on the head node"
            )
