"""Ports of this machine for servers of the tests' own."""

from __future__ import annotations

import random
import socket

RANGE = range(20_000, 32_000)
"""Below the ports that systems give to connections that go out: one of these may be taken the moment it is found."""


def free_port() -> int:
    """A port on which nobody listens."""
    for port in random.sample(RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"of 100 ports from {RANGE.start} to {RANGE.stop} none is free")
