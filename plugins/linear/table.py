"""Configurations of the kernels over whole sequences, by architecture, head dim and chunk."""

from __future__ import annotations

from archsearch.kernels import Config, Key, Table

OP = "linear_attention"

CROWD = 264
"""Programs that keep a card busy: below it sequences are cut into segments."""

SHORTEST_SEGMENT = 16
"""Chunks: a shorter segment is not worth its scan."""

FEWEST_SEGMENTS = 4
"""Segments: cutting a sequence doubles (delta rule: triples) the work of the pass, so fewer gain nothing."""


def _row(*, keys: int, values: int, pass_values: int, warps: int) -> dict[str, Config]:
    """Tiles of `keys` and `values` channels in the kernels of one chunk, of `pass_values` in the pass over chunks."""
    wide = Config(tiles={"K": keys, "V": values}, num_warps=warps)
    return {
        "head_overlaps": wide,
        "channel_scores": wide,
        "solve": Config(tiles={}, num_warps=1),
        "operands": wide,
        "states": Config(tiles={"V": pass_values}, num_warps=4),
        "scan": Config(tiles={"V": pass_values}, num_warps=4, num_stages=1),
        "outputs": wide,
        "d_scores": wide,
        "d_solve": wide,
        "d_states": Config(tiles={"V": pass_values}, num_warps=4),
        "d_inputs": wide,
    }


def _rows(arch: str) -> dict[Key, dict[str, Config]]:
    return {
        (arch, 16, 16): _row(keys=16, values=16, pass_values=16, warps=1),
        (arch, 32, 64): _row(keys=32, values=32, pass_values=32, warps=4),
        (arch, 64, 64): _row(keys=64, values=64, pass_values=32, warps=4),
        (arch, 128, 64): _row(keys=64, values=64, pass_values=32, warps=4),
        (arch, 256, 32): _row(keys=64, values=64, pass_values=32, warps=4),
    }


TABLE = Table(op=OP, package=__package__, rows={**_rows("sm_90"), **_rows("sm_80")})
