"""Configurations of the full attention decode kernels, by architecture and head dim: rows of the cache a turn, and
partial outputs a turn of their merge. Chosen so that nothing spills."""

from __future__ import annotations

from archsearch.kernels import Config, Table


def _row(rows: int, num_warps: int, num_stages: int) -> dict[str, Config]:
    return {
        "decode": Config(tiles={"N": rows}, num_warps=num_warps, num_stages=num_stages),
        "merge": Config(tiles={"S": 16}, num_warps=4, num_stages=1),
    }


TABLE = Table(
    op="full_attention_step",
    package=__package__,
    rows={
        ("sm_90", 16, 0): _row(64, 4, 3),
        ("sm_90", 32, 0): _row(64, 4, 3),
        ("sm_90", 64, 0): _row(64, 4, 3),
        ("sm_90", 128, 0): _row(64, 4, 3),
        ("sm_90", 256, 0): _row(32, 8, 3),
        ("sm_80", 32, 0): _row(64, 4, 3),
        ("sm_80", 64, 0): _row(64, 4, 3),
        ("sm_80", 128, 0): _row(32, 4, 4),
        ("sm_80", 256, 0): _row(32, 8, 3),
    },
)
