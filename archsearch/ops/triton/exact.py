"""Configurations for float32 of kernels of softmax attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from archsearch.kernels import Config, Key
from archsearch.kernels.config import Configs


def for_float32(rows: Mapping[Key, Configs], kernels: Collection[str]) -> dict[Key, Configs]:
    """`Table.exact` for kernels of softmax attention, with tiles of M queries and N keys (either may be missing), whose
    products go over all channels of a head: 32 of either at most, above 64 channels 16, by 8 warps, in one stage;
    "decode" for 16 query heads at most (G)."""

    def narrowed(name: str, config: Config, most: int) -> Config:
        tiles = {tile: min(size, most) for tile, size in config.tiles.items()} | ({"G": 16} if name == "decode" else {})
        return Config(tiles=tiles, num_warps=8, num_stages=1)

    return {
        key: {name: narrowed(name, row[name], 32 if key[1] <= 64 else 16) for name in kernels}
        for key, row in rows.items()
        if key[1] > 16
    }
