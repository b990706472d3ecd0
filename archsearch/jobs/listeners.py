"""Listeners: which ports of this machine are open, and to whom, as Linux tells it."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from pathlib import Path

_LISTENING = "0A"
_PROC = Path("/proc")
_OURS = ("gcs_server", "raylet", "ray::", "dashboard", "ray.util.client", "runtime_env")


def listeners(proc: Path = _PROC) -> list[list[str]]:
    """(address, port, process) of what Ray's processes listen on, by port; empty where the system does not tell."""
    sockets = {inode: (address, port) for inode, address, port in _sockets(proc)}
    found: dict[tuple[str, int], str] = {}
    for process in proc.glob("[0-9]*"):
        name = _name(process)
        if not any(word in name for word in _OURS):
            continue
        for inode in _inodes(process):
            if inode in sockets:
                found.setdefault(sockets[inode], _brief(name))
    return [[address, str(port), name] for (address, port), name in sorted(found.items(), key=lambda one: one[0][1])]


def is_open(address: str) -> bool:
    """Whether other machines reach what is bound to this address; an IPv4 address may be written as IPv6 has it."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not (mapped or found).is_loopback


def _sockets(proc: Path) -> list[tuple[str, str, int]]:
    """(inode, address, port) of every socket that listens."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING:
                address, _, port = fields[1].partition(":")
                found.append((fields[9], _address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as /proc/net has it: words of 4 bytes in the machine's order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _name(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _inodes(process: Path) -> list[str]:
    found = []
    try:
        for link in (process / "fd").iterdir():
            target = os.readlink(link)
            if target.startswith("socket:["):
                found.append(target[8:-1])
    except OSError:
        pass
    return found


def _brief(command: str) -> str:
    """The program of a command line, without its path and arguments; of Python the script."""
    words = command.split()
    program = Path(words[0]).name if words else ""
    if not program.startswith("python"):
        return program
    return next((Path(word).name for word in words[1:] if word.endswith(".py")), " ".join(words[1:3]))
