"""The checks of the core and of the built-in plugins, and the device that tries them here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

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


class Tiling(NamedTuple):
    """A row with its own configurations, those of a candidate, or those for float32."""

    key: Key
    candidate: int | None = None
    exact: bool = False

    @property
    def label(self) -> str:
        """As a test is named."""
        arch, dim, chunk = self.key
        of = f"{arch}-D{dim}-C{chunk}"
        if self.exact:
            return f"{of}-float32"
        return of if self.candidate is None else f"{of}-candidate-{self.candidate}"


def tilings(table: Table) -> Iterator[Tiling]:
    """Rows, then candidates, then rows for float32, that the interpreter can tell from each other and from the first
    row: it knows tiles, but neither warps nor stages."""
    first = next(iter(table.rows))
    seen = {_tiles(first, table.rows[first])}
    every = [Tiling(key) for key in table.rows]
    every += [Tiling(key, number) for key in table.candidates for number in table.numbers(key)]
    every += [Tiling(key, exact=True) for key in table.exact]
    for tiling in every:
        configs = table.configs(tiling.key, tiling.candidate, exact=tiling.exact)
        tiles = _tiles(tiling.key, configs)
        if tiles not in seen:
            seen.add(tiles)
            yield tiling


def _tiles(key: Key, configs: Configs) -> str:
    return repr((key[1:], sorted((name, sorted(config.tiles.items())) for name, config in configs.items())))
