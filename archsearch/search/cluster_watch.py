"""Cluster watch: notices within a minute that the cluster is gone, which Ray's own calls wait for much longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray

LOOK_SECONDS = 2.0
SILENT_SECONDS = 30.0
"""How long the cluster's head may say nothing; Ray ends a driver by itself after 45 s (`ray_session`)."""
ROOMLESS_SECONDS = 300.0
"""How long no machine of the cluster may have room for a trial, though one had it when the search began."""

Node = Mapping[str, Any]


class ClusterWatch:
    """Judges by looks at the cluster's nodes; ``mine`` is the driver's own, through which it talks to the others."""

    def __init__(
        self,
        *,
        mine: str,
        fits: Callable[[Node], bool],
        knock: Callable[[Node], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``fits`` says whether a node is large enough for a trial, ``knock`` whether its raylet takes connections;
        ``clock``, in seconds, is for tests."""
        self._mine, self._fits, self._knock, self._clock = mine, fits, knock, clock
        self._answered = self._had_room = clock()

    def saw(self, nodes: Sequence[Node]) -> str:
        """What is wrong with the cluster whose nodes these are, in a sentence, "" where nothing is."""
        self._answered = now = self._clock()
        alive = [node for node in nodes if node["Alive"]]
        mine = [node for node in nodes if node["NodeID"] == self._mine]
        if any(not node["Alive"] or not self._knock(node) for node in mine):
            return "Ray's process on the driver's machine (its raylet) has died"
        if any(map(self._fits, alive)):
            self._had_room = now
        elif now - self._had_room > ROOMLESS_SECONDS:
            return f"for {ROOMLESS_SECONDS:.0f} s no machine of the cluster was large enough for a trial"
        return ""

    def silence(self) -> str:
        """What is wrong where the cluster has not answered for long, "" where it has."""
        if self._clock() - self._answered > SILENT_SECONDS:
            return f"the cluster's head has not answered for {SILENT_SECONDS:.0f} s"
        return ""


def takes_connections(node: Node) -> bool:
    """Whether the node's raylet does; Ray itself takes a quarter of a minute to find that one was killed."""
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=LOOK_SECONDS):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # slow, which is no proof


@contextmanager
def watching(fits: Callable[[Node], bool], gone: Callable[[str], None]) -> Iterator[None]:
    """Looks at the initialised Ray every few seconds while inside; `gone` hears once, in a thread of its own, what is
    wrong with it."""
    watch = ClusterWatch(mine=ray.get_runtime_context().get_node_id(), fits=fits, knock=takes_connections)
    left, told = threading.Event(), threading.Lock()

    def tell(fault: str) -> None:
        if fault and not left.is_set() and told.acquire(blocking=False):
            gone(fault)

    def look() -> None:
        while not left.wait(LOOK_SECONDS):
            with suppress(Exception):  # Ray tells a head that is away in many ways: its silence is what counts
                tell(watch.saw(ray.nodes()))

    def listen() -> None:
        while not left.wait(LOOK_SECONDS):
            tell(watch.silence())

    for work in (look, listen):  # apart, as a look may hang
        threading.Thread(target=work, name=f"cluster-{work.__name__}", daemon=True).start()
    try:
        yield
    finally:
        left.set()
