"""Last words: what a worker leaves in a file for its driver, as Ray does not tell a crash, an exit and a kill apart."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from archsearch.training.memory import machine_bytes
from archsearch.units import format_quantity

ASK_SECONDS = 20.0
"""How long a driver waits for the node of a worker that died."""

_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
_FATAL = re.compile(r"Fatal Python error: (.+)")
_FRAME = re.compile(r'^  File "(.+)", line (\d+)(?: in (.+))?$', re.MULTILINE)
_EXIT = re.compile(r"^exit (-?\d+)$", re.MULTILINE)
_MOST_BYTES = 20_000
_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a worker's file said: ``said`` in a sentence, "" where it had no time to say anything; whether the kernel
    has ended a process for want of memory since the worker began; and the machine's memory, in words."""

    said: str = ""
    kernel_killed: bool = False
    memory: str = ""


class LastWords:
    """The worker's side: a file that gets the signal that ends the process with the Python frames, or its exit code."""

    def __init__(self) -> None:
        self.path = _folder() / f"archsearch-words-{os.getpid()}.txt"
        self._file = self.path.open("w")
        self._file.write(json.dumps({"kills": kernel_kills(), "memory": machine_bytes()}) + "\n")
        self._file.flush()
        faulthandler.enable(file=self._file, all_threads=False)
        self._pid, self._exit = os.getpid(), os._exit
        os._exit = self._exiting

    def _exiting(self, status: int) -> Any:
        """`os._exit`, which says nothing by itself; children of this process have words of their own."""
        if os.getpid() == self._pid:
            try:
                self._file.write(f"exit {status}\n")
                self._file.flush()
            except (OSError, ValueError):
                pass
        self._exit(status)


def _folder() -> Path:
    """Beside the logs of Ray's workers, which Ray removes with them; elsewhere where Ray has changed its ways."""
    node = getattr(getattr(ray, "_private", None), "worker", None)
    folder = getattr(getattr(node, "_global_node", None), "get_logs_dir_path", tempfile.gettempdir)()
    return Path(folder)


def kernel_kills() -> int:
    """How many processes the kernel has ended on this machine for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def hear(node_id: str, path: str) -> Words | None:
    """The last words of a worker, asked of its node; None where nobody there answers."""
    if not node_id or not path:
        return None
    where = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    try:
        task = ray.remote(_reader()).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        text, kills = ray.get(task.remote(path, _MOST_BYTES), timeout=ASK_SECONDS)
    except ray.exceptions.RayError:
        return None
    return understand(text, kills)


def _reader() -> Callable[[str, int], tuple[str, int]]:
    """Made inside a function, so that it travels by value and a worker needs no import to run it; what it has read
    is removed."""

    def read(path: str, most: int) -> tuple[str, int]:
        import contextlib
        import os

        def start(file: str, size: int) -> str:
            try:
                with open(file, errors="replace") as opened:
                    return opened.read(size)
            except OSError:
                return ""

        counts = [line.split()[1] for line in start("/proc/vmstat", 1_000_000).splitlines() if line[:9] == "oom_kill "]
        text = start(path, most)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return text, int(counts[0]) if counts else 0

    return read


def understand(text: str, kills: int) -> Words:
    """What the file's `text` says, where the kernel has ended `kills` processes until now."""
    first, _, rest = text.partition("\n")
    try:
        begun = json.loads(first)
        before, memory = int(begun["kills"]), int(begun["memory"])
    except (ValueError, TypeError, KeyError):
        return Words()
    of = f", whose machine has {format_quantity(memory, unit='bytes')}"
    return Words(said=_said(rest), kernel_killed=kills > before, memory=of)


def _said(text: str) -> str:
    fatal = _FATAL.search(text)
    if fatal:
        what = fatal[1].strip()
        name = f" ({_SIGNALS[what]})" if what in _SIGNALS else ""
        frames = [f"{function} ({Path(file).name}:{line})" for file, line, function in _FRAME.findall(text)[:_FRAMES]]
        inside = f" in {', called by '.join(frames)}" if frames else ""
        return f"the worker crashed: {what[0].lower()}{what[1:]}{name}{inside}"
    code = _EXIT.search(text)
    return f"the worker's process ended itself with exit code {code[1]}" if code else ""
