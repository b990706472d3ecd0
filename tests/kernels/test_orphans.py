"""A proof ends with the process that asked for it, however that ended, and so does all that it started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

BOUND_SECONDS = 120.0
CHILD = """
import os, subprocess, sys, time
from pathlib import Path
import archsearch.proving.__main__ as proving
def answer(asked, say):
    tool = subprocess.Popen(["sleep", "1000"])
    told = Path(PATH)
    told.with_suffix(".new").write_text(f"{os.getpid()} {tool.pid}")
    told.with_suffix(".new").replace(told)
    time.sleep(1000)
proving.answer = answer
proving.main(sys.argv[1:])
"""
PARENT = """
from archsearch.evidence.proofs import Machine
from archsearch.kernels import Config, Table
from archsearch.kernels.prove import Prover, Row
machine = Machine(card="H200", arch="sm_90", driver="580", torch="2.11.0", triton="3.6.0", ptxas="12.8")
table = Table(op="orphaned", package="archsearch_plugins.full.triton", rows={("sm_90", 64, 0): {}})
row = Row(table=table, key=("sm_90", 64, 0), dtype="bfloat16", device="cpu", machine=machine)
Prover(command=("-c", CHILD)).prove(row)
"""


def test_a_child_and_its_tools_end_with_a_parent_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    told = tmp_path / "pids"
    child = CHILD.replace("PATH", repr(str(told)))
    parent = subprocess.Popen([sys.executable, "-c", PARENT.replace("CHILD", repr(child))])
    pids: list[int] = []
    try:
        until(lambda: told.exists() or parent.poll() is not None)
        pids = [int(word) for word in told.read_text().split()]
        assert all(map(runs, pids))
        parent.kill()
        parent.wait()
        until(lambda: not any(map(runs, pids)))
    finally:
        parent.kill()
        for pid in filter(runs, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process runs: one that ended, and that nobody has waited for, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
