"""Options of 2-simplicial attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class SimplicialOptions(MixerOptions):
    """Options of the mixer `simplicial`.

    ``window``: tokens that a pair's first may be, the own one included.
    ``second_window``: tokens that a pair's second may be, the own one included.
    ``qk_norm``: RMSNorm of each head of q and of the first k.
    """

    window: Annotated[int, Field(ge=1, le=2**16), Tunable(16, 32)] = 16
    second_window: Annotated[int, Field(ge=1, le=2**16), Tunable(4, 8)] = 4
    qk_norm: bool = False
