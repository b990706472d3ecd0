"""Options of attention whose cache evicts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class EvictingOptions(MixerOptions):
    """Options of the mixer `evicting`.

    ``heavy``: tokens that are kept for what was attended to them, by each key head.
    ``recent``: last tokens that are kept, the own one included.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    """

    heavy: Annotated[int, Field(ge=1, le=2**24), Tunable(16, 32, 64)] = 32
    recent: Annotated[int, Field(ge=1, le=2**24), Tunable(16, 32, 64)] = 32
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0

    @property
    def kept(self) -> int:
        """Rows of the cache."""
        return self.heavy + self.recent
