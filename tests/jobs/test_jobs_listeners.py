"""Ports as Linux tells of them: which are open, to whom, and by which process."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from archsearch.jobs.listeners import is_open, listeners


def line(address: str, port: int, inode: int, state: str = "0A") -> str:
    """A line of /proc/net/tcp or tcp6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"0: {''.join(f'{word:08X}' for word in words)}:{port:04X} 0:0 {state} 0:0 0:0 0 0 0 {inode} 1"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    told = [
        line("0.0.0.0", 6379, 1),
        line("127.0.0.1", 8265, 2),
        line("10.0.0.1", 5000, 3, "01"),
        line("0.0.0.0", 22, 4),
    ]
    (tmp_path / "net" / "tcp").write_text("\n".join(["header", *told]))
    (tmp_path / "net" / "tcp6").write_text("\n".join(["header", line("::", 8266, 5), line("::1", 8267, 6)]))
    processes = {
        "10": (b"/lib/ray/gcs_server\0--port", [1]),
        "11": (b"/bin/python3\0-u\0/lib/ray/dashboard/dashboard.py\0", [2, 5, 6]),
        "12": (b"ray::IDLE", [3]),
        "13": (b"/usr/sbin/sshd", [4]),
    }
    for number, (command, inodes) in processes.items():
        (tmp_path / number / "fd").mkdir(parents=True)
        (tmp_path / number / "cmdline").write_bytes(command)
        for inode in inodes:
            (tmp_path / number / "fd" / str(inode)).symlink_to(f"socket:[{inode}]")
    return tmp_path


def test_what_rays_processes_listen_on(proc: Path) -> None:
    assert listeners(proc) == [
        ["0.0.0.0", "6379", "gcs_server"],
        ["127.0.0.1", "8265", "dashboard.py"],
        ["::", "8266", "dashboard.py"],
        ["::1", "8267", "dashboard.py"],
    ]


def test_what_is_open_to_others() -> None:
    opened = {address: is_open(address) for address in ("0.0.0.0", "::", "10.0.0.1", "127.0.0.1", "::1")}
    assert opened == {"0.0.0.0": True, "::": True, "10.0.0.1": True, "127.0.0.1": False, "::1": False}


def test_an_ipv4_address_that_is_written_as_ipv6_is_open_as_itself() -> None:
    opened = {address: is_open(f"::ffff:{address}") for address in ("0.0.0.0", "10.0.0.1", "127.0.0.1", "127.8.0.1")}
    assert opened == {"0.0.0.0": True, "10.0.0.1": True, "127.0.0.1": False, "127.8.0.1": False}


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert listeners(tmp_path) == []
