"""Configurations of the window attention kernels, by architecture and head dim.

"forward" and "queries" take M queries a program and N keys a turn, "keys" N keys a program and M queries a turn,
"decode" N rows of the cache a turn, "merge" S partial outputs a turn. Chosen so that nothing spills.
"""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32


def _tile(m: int, n: int, num_warps: int, num_stages: int) -> Config:
    return Config(tiles={"M": m, "N": n}, num_warps=num_warps, num_stages=num_stages)


def _row(forward: Config, queries: Config, keys: Config, decode: Config) -> dict[str, Config]:
    merge = Config(tiles={"S": 16}, num_warps=4, num_stages=1)
    return {"forward": forward, "queries": queries, "keys": keys, "decode": decode, "merge": merge}


_DECODE = Config(tiles={"N": 64}, num_warps=4, num_stages=3)
_DECODE_NARROW = Config(tiles={"N": 32}, num_warps=4, num_stages=4)
_DECODE_WIDE = Config(tiles={"N": 32}, num_warps=8, num_stages=3)
_SMALL = _row(_tile(128, 64, 4, 3), _tile(64, 64, 4, 3), _tile(64, 64, 4, 3), _DECODE)

_FORWARDS = ({"forward": _tile(64, 64, 4, 3)}, {"forward": _tile(128, 64, 8, 2)})
"""Smaller tiles of queries, and fewer stages: for "archsearch kernels tune" to compare."""

_DECODES = ({"decode": Config(tiles={"N": 32}, num_warps=4, num_stages=3)},)
"""Shorter turns over the cache."""

ROWS: dict[Key, dict[str, Config]] = {
    ("sm_90", 16, 0): _SMALL,
    ("sm_90", 32, 0): _SMALL,
    ("sm_90", 64, 0): _SMALL,
    ("sm_90", 128, 0): _row(_tile(128, 64, 8, 3), _tile(128, 64, 8, 2), _tile(32, 128, 8, 3), _DECODE),
    ("sm_90", 256, 0): _row(_tile(128, 32, 8, 2), _tile(64, 64, 8, 2), _tile(64, 32, 8, 2), _DECODE_WIDE),
    ("sm_80", 32, 0): _SMALL,
    ("sm_80", 64, 0): _row(_tile(128, 64, 4, 3), _tile(64, 64, 4, 3), _tile(32, 128, 8, 3), _DECODE),
    ("sm_80", 128, 0): _row(_tile(128, 64, 8, 3), _tile(64, 64, 8, 2), _tile(64, 64, 8, 2), _DECODE_NARROW),
    ("sm_80", 256, 0): _row(_tile(64, 64, 8, 2), _tile(64, 64, 8, 2), _tile(64, 32, 8, 2), _DECODE_WIDE),
}
TABLE = Table(
    op="window_attention",
    package=__package__,
    rows=ROWS,
    exact=for_float32(ROWS, ("forward", "queries", "keys", "decode")),
    candidates={
        ("sm_90", 16, 0): _FORWARDS,
        ("sm_90", 128, 0): (*_FORWARDS, *_DECODES),
        ("sm_80", 128, 0): _FORWARDS,
    },
)
