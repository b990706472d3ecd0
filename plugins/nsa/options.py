"""Options of native sparse attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable

from .sizes import NsaSizes


class NsaOptions(MixerOptions):
    """Options of the mixer `nsa`.

    ``block_size``: tokens of a block, compressed to a mean and chosen as one.
    ``top_k``: blocks that are chosen, the own one and block 0 included.
    ``window``: tokens seen in any case, the own one included.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    """

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(32, 64, 128)] = 64
    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(2, 4, 8, 16)] = 8
    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256, 512)] = 256
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0

    @property
    def sizes(self) -> NsaSizes:
        """What each branch sees."""
        return NsaSizes(block_size=self.block_size, top_k=self.top_k, window=self.window)
