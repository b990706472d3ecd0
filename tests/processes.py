"""Processes of this machine, as Linux tells of them."""

from __future__ import annotations

from pathlib import Path


def children(parent: int) -> list[int]:
    """The processes that a process has started and that run."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _stat(folder)[1:2] == [str(parent)]]


def running(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    return _stat(Path("/proc") / str(process))[:1] not in ([], ["Z"])


def _stat(folder: Path) -> list[str]:
    """The state of a process, its parent and what follows, as proc_pid_stat(5) has them; nothing where it is gone."""
    try:
        return (folder / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
