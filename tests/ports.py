"""Ports of this machine for servers of the tests' own."""

from __future__ import annotations

import random
import socket

RANGE = range(20_000, 32_000)
"""Below the ports that systems give to connections that go out: one of these may be taken the moment it is found."""


def free_port() -> int:
    """A port on which nobody listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """As many different ports on which nobody listens."""
    found: list[int] = []
    for port in random.sample(RANGE, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"of 200 ports from {RANGE.start} to {RANGE.stop} {len(found)} are free, and {count} are asked for")
