"""Options of mixture of block attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class MobaOptions(MixerOptions):
    """Options of the mixer `moba`.

    ``block_size``: tokens of a block.
    ``top_k``: blocks that a query head sees, its own block included.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    """

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256, 512)] = 128
    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(2, 3, 4, 8)] = 4
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0
