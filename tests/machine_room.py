"""Memory of this machine: what is left of it, and the share from which on Ray ends workers for want of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from archsearch.training.memory import machine_bytes


def available_bytes() -> int:
    """What processes may still take."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def watched(room: int) -> dict[str, str]:
    """Variables of a Ray whose memory monitor ends workers once `room` bytes more are in use; skips where there is not
    as much to spare."""
    there = available_bytes()
    threshold = (machine_bytes() - there + room) / machine_bytes()
    if threshold > 0.9:
        pytest.skip(f"this machine has too little memory to spare ({there / 2**30:.1f} GiB)")
    return {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "250"}
