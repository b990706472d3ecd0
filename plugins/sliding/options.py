"""Options of sliding-window attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class SlidingOptions(MixerOptions):
    """``window``: tokens seen, the own one included. ``sinks``: first tokens of the sequence that are always seen.

    ``rope``: the rotated fraction of a head, 0 for no positions at all. ``n_kv_heads``: 0 for the model's.
    """

    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256)] = 128
    sinks: Annotated[int, Field(ge=0, le=2**24), Tunable(0, 4)] = 0
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    n_kv_heads: int = Field(default=0, ge=0, le=2**16)
