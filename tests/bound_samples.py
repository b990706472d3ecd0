"""Bounds of a launch and of an op, of numbers that no compiler gave."""

from __future__ import annotations

from archsearch.bench.bounds import LaunchBound, OpBound
from archsearch.bench.results.work import Shape


def sample_launch(seconds: float, kernel: str = "forward") -> LaunchBound:
    """A launch that its cache holds to so many seconds, and its memory to half of them."""
    return LaunchBound(
        kernel=kernel,
        digest=kernel,
        programs=100,
        num_warps=4,
        registers=255,
        shared_bytes=4096,
        resident=2,
        held_by="registers",
        waves=1,
        flops=2e9,
        moved_bytes=4e9,
        asked_bytes=8e9,
        passes=8,
        seconds_by={"memory": seconds / 2, "cache": seconds},
        uncertain=False,
    )


def sample_bound(*launches: LaunchBound, op: str, phase: str, shape: Shape, arch: str, op_seconds: float) -> OpBound:
    """An op of these launches, whose own bound is so many seconds."""
    return OpBound(
        arch=arch,
        op=op,
        phase=phase,
        shape=shape,
        sizes={},
        op_seconds=op_seconds,
        op_bytes=1e9,
        launches=launches,
    )
