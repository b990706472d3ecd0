"""Options of native sparse attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class NsaOptions(MixerOptions):
    """``block_size``: tokens of a block, compressed to a mean and chosen as one. ``top_k``: blocks that are chosen.

    ``window``: tokens seen in any case, the own one included. ``rope``: the rotated fraction of a head, 0 for none.
    """

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(32, 64, 128)] = 64
    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(2, 4, 8, 16)] = 8
    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256, 512)] = 256
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0
