"""Reservations: what data-parallel trials had reserved is freed when the process that reserved it has died.

Ray keeps a placement group until both its maker and the whole job have ended. Ray Train makes one for each group of
workers, in a process of its own, which dies with that of the trial.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group

LOOK_SECONDS = 2.0


def orphans() -> list[PlacementGroup]:
    """The reservations of this job whose maker has died; Ray's public table does not tell of makers."""
    state = getattr(getattr(ray, "_private", None), "state", None)
    accessor = getattr(getattr(state, "state", None), "_connect_and_get_accessor", None)
    if accessor is None:
        return []
    job = ray.get_runtime_context().get_job_id()
    found = []
    for packed in accessor().get_placement_group_table():
        told = gcs_pb2.PlacementGroupTableData.FromString(packed)
        ours = told.creator_job_id.hex() == job and told.state != gcs_pb2.PlacementGroupTableData.REMOVED
        made_by_actor = not ray.ActorID(told.creator_actor_id).is_nil()  # else by the driver, for Tune
        if ours and made_by_actor and told.creator_actor_dead:
            found.append(PlacementGroup(ray.PlacementGroupID(told.placement_group_id)))
    return found


@contextmanager
def freeing_orphans() -> Iterator[None]:
    """Looks for them every few seconds while inside, in a thread of its own, as a look may hang."""
    left = threading.Event()

    def look() -> None:
        while not left.wait(LOOK_SECONDS):
            with suppress(Exception):  # a head that is away is noticed by `cluster_watch`
                for group in orphans():
                    remove_placement_group(group)

    threading.Thread(target=look, name="reservations", daemon=True).start()
    try:
        yield
    finally:
        left.set()
