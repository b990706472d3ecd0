"""Options of attention under a static pattern, and the pattern's counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from archsearch import MixerOptions, Tunable


class StaticOptions(MixerOptions):
    """Options of the mixer `static`.

    ``block_size``: tokens of a block, the unit of the pattern; 1 makes a pattern of tokens.
    ``local``: blocks before the own one that the window has.
    ``dilation``: how many blocks apart the window's blocks lie; 1 for none between them.
    ``first``: blocks at the start of the sequence that every token sees.
    ``random``: blocks that are drawn, once and for all, among those before the window.
    ``seed``: seed of the draw of blocks; each layer and key head has one of its own.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``first_projections``: tokens of the first blocks are keys and values, and are asked, by projections of their own.
    """

    later: ClassVar[tuple[str, ...]] = ("first_projections",)

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(8, 16)] = 8
    local: Annotated[int, Field(ge=0, le=2**16), Tunable(1, 3)] = 3
    dilation: Annotated[int, Field(ge=1, le=2**16), Tunable(1, 2)] = 1
    first: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 1)] = 1
    random: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 2)] = 0
    seed: int = Field(default=0, ge=0, le=2**16)
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0
    first_projections: bool = False

    def unread(self) -> Mapping[str, str]:
        found = {} if self.random else {"seed": "random=0: use random above 0"}
        if not self.first:
            found["first_projections"] = "first=0: use first above 0"
        return found if self.local else {**found, "dilation": "local=0: use local above 0"}

    @property
    def reach(self) -> int:
        """Blocks from the own one back to the window's last."""
        return self.local * self.dilation

    @property
    def bounded(self) -> bool:
        """Whether what is kept is the first blocks and those that the window reaches."""
        return self.random == 0

    def earlier(self, block: int) -> int:
        """Blocks beside its own that the tokens of a block see."""
        behind = max(0, block - self.first)
        drawn = min(self.random, max(0, behind - self.reach))
        return min(self.first, block) + min(self.local, behind // self.dilation) + drawn
