"""Options of attention whose cache evicts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from archsearch import MixerOptions, Tunable


class EvictingOptions(MixerOptions):
    """Options of the mixer `evicting`.

    ``heavy``: tokens that are kept for what was attended to them, by each key head.
    ``recent``: last tokens that are kept, the own one included.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``n_kv_heads``: key heads, each of which keeps tokens of its own; 0 for the backbone's.
    """

    later: ClassVar[tuple[str, ...]] = ("n_kv_heads",)

    heavy: Annotated[int, Field(ge=1, le=2**24), Tunable(16, 32, 64)] = 32
    recent: Annotated[int, Field(ge=1, le=2**24), Tunable(16, 32, 64)] = 32
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0
    n_kv_heads: int = Field(default=0, ge=0, le=2**16)

    @property
    def kept(self) -> int:
        """Rows of the cache."""
        return self.heavy + self.recent
