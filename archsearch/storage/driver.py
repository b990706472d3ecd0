"""Driver: the process that drives a search, described so that others can tell whether it still runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc")
_MOST_PID = 2**31 - 1
_GONE = ("Z", "X", "x")
"""States of a process in /proc/PID/stat that has ended: a zombie waits only to be asked how."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A process: ``pid`` within a ``pid_namespace`` of one boot of a machine, ``started`` in clock ticks after it.

    A pid comes back in time, with another start. Where the system tells no boot (``boot_id`` "", ``started`` 0), as
    on macOS, a driver is never known to be dead.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Driver:
        """This process."""
        found = _process(os.getpid())
        return cls(
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
            pid=os.getpid(),
            started=0 if found is None else found[1],
        )

    def alive(self) -> bool | None:
        """Whether it runs, None where that cannot be told from here: on another machine, or in another container."""
        if not self.boot_id or not self.started or not 0 < self.pid <= _MOST_PID:
            return None
        if (self.boot_id, self.pid_namespace) != (_boot_id(), _pid_namespace()):
            return None
        found = _process(self.pid)
        if found is None:
            return _unless_hidden(self.pid)
        state, started = found
        return started == self.started and state not in _GONE

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads `to_json`'s data; raises `ValueError` for anything else."""
        texts, numbers = ("host", "boot_id", "pid_namespace"), ("pid", "started")
        wrong = set(data) != {*texts, *numbers}
        if wrong or not all(type(data[name]) is str for name in texts):
            raise ValueError("a driver has a host, a boot_id, a pid_namespace, a pid and a start")
        if not all(type(data[name]) is int and data[name] >= 0 for name in numbers):
            raise ValueError("a driver's pid and its start are whole numbers")
        return cls(**data)


def _boot_id() -> str:
    """Another one for each boot of the machine, "" where there is none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    """Another one for each container that counts its processes by itself, "" where there are none."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, int] | None:
    """The state of a process and its start in clock ticks after the boot (fields 3 and 22 of proc_pid_stat(5))."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # the name in parentheses may hold spaces and parentheses
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _unless_hidden(pid: int) -> bool | None:
    """False where no such process is; None where there is one of which this user is told nothing (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None
