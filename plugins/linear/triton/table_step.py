"""Configurations of the kernel of one decoded token, by architecture and key dim."""

from __future__ import annotations

from archsearch.kernels import Config, Key, Table

OP = "linear_attention_step"

CROWD = 256
"""Programs that keep a card busy: below it a step is cut into narrower tiles of values."""


def _rows(arch: str) -> dict[Key, dict[str, Config]]:
    return {
        (arch, 32, 0): _row(wide=64, warps=2, narrow=16),
        (arch, 64, 0): _row(wide=32, warps=2, narrow=8),
        (arch, 128, 0): _row(wide=32, warps=4, narrow=8),
        (arch, 256, 0): _row(wide=16, warps=4, narrow=8, narrow_warps=2),
    }


def _row(*, wide: int, warps: int, narrow: int, narrow_warps: int = 1) -> dict[str, Config]:
    """Tiles of `wide` values where there are many heads in the batch, of `narrow` ones where there are few."""
    return {
        "wide": Config(tiles={"V": wide}, num_warps=warps, num_stages=1),
        "narrow": Config(tiles={"V": narrow}, num_warps=narrow_warps, num_stages=1),
    }


_SMALL = {("sm_90", 16, 0): _row(wide=64, warps=1, narrow=16)}

TABLE = Table(op=OP, package=__package__, rows={**_SMALL, **_rows("sm_90"), **_rows("sm_80")})
