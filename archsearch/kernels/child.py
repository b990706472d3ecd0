"""Children: a process that may crash, hang or eat memory, and takes nothing of its caller with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.05
_ORPHAN_POLL_SECONDS = 0.5
_OUR_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""What ends a child from outside, and says nothing of what it ran."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a child may take: seconds of the clock, and bytes of the host's memory."""

    seconds: float
    host_bytes: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended: what it wrote to stdout; why it went wrong, empty where it did not; whether that may be
    put down to what it ran, and not to who ended it or to what it lacked; whether it was `late`, which may be put down
    to either; and whether somebody `killed` it."""

    output: str
    reason: str = ""
    own: bool = False
    late: bool = False
    killed: bool = False


def run_child(command: Sequence[str], limits: Limits, environ: Mapping[str, str]) -> Ended:
    """Runs a command in a process group of its own, which ends with this call whatever happens."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=dict(environ), start_new_session=True
        )
        try:
            reason, late = _watched(child, limits)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        errors.seek(0)
        output = out.read()
        if reason:
            return Ended(output=output, reason=reason, own=not late, late=late)
        return _ended(child.returncode, output, errors.read())


def end_with_parent(parent: int) -> None:
    """From now on this process and its group end when `parent`, the process that started it, is gone, however that
    ended: nobody is left then who would. For a child of `run_child`, which leads a group of its own."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_POLL_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def python_here() -> tuple[list[str], dict[str, str]]:
    """Python and its environment, so that a child imports what this process can, and nothing of the folder where it
    happens to start."""
    paths = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
    return [sys.executable, "-P"], {**os.environ, "PYTHONPATH": paths}


def _watched(child: subprocess.Popen[bytes], limits: Limits) -> tuple[str, bool]:
    """Waits for its end, or for what it may not take: then why it must end, and whether time is why."""
    start = time.monotonic()
    while child.poll() is None:
        if time.monotonic() - start > limits.seconds:
            return f"it took longer than {limits.seconds:g} s", True
        taken = _host_bytes(child.pid)
        if taken > limits.host_bytes:
            return f"it took {taken / 2**30:.1f} GiB of memory, of {limits.host_bytes / 2**30:.1f} that it may", False
        time.sleep(_POLL_SECONDS)
    return "", False


def _host_bytes(pid: int) -> int:
    """Memory of a process that lies in the machine's, 0 where nobody tells."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _ended(code: int, output: str, errors: str) -> Ended:
    if code == 0:
        return Ended(output=output)
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
    if code > 0:
        return Ended(output=output, reason=last or f"its process ended with {code}")
    found = signal.Signals(-code)
    killed = found in _OUR_SIGNALS
    return Ended(output=output, reason=f"its process ended by {found.name}", own=not killed, killed=killed)
