"""What the decode step of full attention compiles, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

from archsearch.kernels import Build
from archsearch.model.kernels.step import step_builds

from .table import TABLE


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture in bfloat16."""
    for key in TABLE.rows:
        if key[0] == arch:
            yield from step_builds(TABLE, key)
