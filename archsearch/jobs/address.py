"""Addresses of a cluster: the URL of a Ray dashboard, checked before anything is sent there."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from archsearch.errors import ClusterError
from archsearch.waiting import within

EXAMPLE = "http://127.0.0.1:8265"
LOOKUP_SECONDS = 10.0


def read_address(address: str) -> str:
    """``http(s)://HOST[:PORT]`` without a trailing slash; raises `ClusterError` for anything else."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ClusterError(f'address "{address}": {error}: write the URL of the Ray dashboard, as {EXAMPLE}') from None
    if parts.scheme not in ("http", "https") or not host:
        raise ClusterError(
            f'address "{address}" is no http URL: write that of the Ray dashboard, as {EXAMPLE} '
            "(not the port of ray:// or of the cluster itself)"
        )
    shown = f"[{host}]" if ":" in host else host
    plain = f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ClusterError(f"an address is a scheme, a host and a port, without user, path or query: write {plain}")
    return plain


def is_loopback(address: str) -> bool:
    """Whether all that the host of `address` (`read_address`'s) stands for is this machine alone; a name that cannot
    be looked up is not."""
    host = urlsplit(address).hostname or ""
    try:
        found = within(LOOKUP_SECONDS, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        return bool(found) and all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
    except (OSError, ValueError, UnicodeError):
        return False
