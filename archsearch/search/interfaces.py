"""Interfaces: by which of this machine's network interfaces the others reach it."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

VARIABLE = "GLOO_SOCKET_IFNAME"
"""Names the interface by which gloo listens; without it that of the host's own name, often the loopback one."""
_GET_ADDRESS, _NAME_BYTES = 0x8915, 15
"""Linux's SIOCGIFADDR, and how long a name may be (netdevice(7))."""


def interface_of(address: str) -> str:
    """The name of the interface that has the IPv4 `address`; "" where none has it, and beyond Linux."""
    with suppress(ImportError, OSError):
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _, name in socket.if_nameindex():
                with suppress(OSError):  # one without an address
                    asked = struct.pack("256s", name.encode()[:_NAME_BYTES])
                    if socket.inet_ntoa(fcntl.ioctl(asking, _GET_ADDRESS, asked)[20:24]) == address:
                        return name
    return ""


def listen_at(address: str) -> None:
    """Has gloo listen where `address` is, unless somebody has named an interface."""
    name = interface_of(address)
    if name:
        os.environ.setdefault(VARIABLE, name)
