"""The checks of the core and of the built-in plugins, and the device that tries them here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import torch

from archsearch.kernels import Key, Table
from archsearch.kernels.config import Configs
from archsearch.proving import Check
from archsearch.proving.rows import all_checks
from archsearch.registry import load_registry

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BUILT_IN = {"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,latent,indexed"}


@cache
def known_checks() -> dict[str, list[Check]]:
    """Of the core and the built-in plugins, by op."""
    return all_checks(load_registry(environ=BUILT_IN))


def tilings(table: Table) -> Iterator[tuple[Key, int | None]]:
    """Rows, and then rows with numbers of candidates, that the interpreter can tell from each other and from the first
    row: it knows tiles, but neither warps nor stages."""
    first = next(iter(table.rows))
    seen = {_tiles(first, table.rows[first])}
    rows = ((key, None) for key in table.rows)
    candidates = ((row, number) for row in table.candidates for number in table.numbers(row))
    for key, number in itertools.chain[tuple[Key, int | None]](rows, candidates):
        tiles = _tiles(key, table.configs(key, number))
        if tiles not in seen:
            seen.add(tiles)
            yield key, number


def _tiles(key: Key, configs: Configs) -> str:
    return repr((key[1:], sorted((name, sorted(config.tiles.items())) for name, config in configs.items())))
