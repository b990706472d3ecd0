"""Options of 2-simplicial attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archsearch import MixerOptions, Tunable

Score = Literal["product", "determinant"]
"""Of a query and two keys: the sum of products channel by channel, or of determinants of groups of three channels."""


class SimplicialOptions(MixerOptions):
    """Options of the mixer `simplicial`.

    ``window``: tokens that a pair's first may be, the own one included.
    ``second_window``: tokens that a pair's second may be, the own one included.
    ``qk_norm``: RMSNorm of each head of q and of the first k.
    ``score``: what three vectors come to: product, the sum of their products channel by channel; determinant, the sum
    of their determinants over groups of three channels.
    ``rope``: share of those groups in which a token's position turns query and keys; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    """

    later: ClassVar[tuple[str, ...]] = ("score", "rope", "rope_base")

    window: Annotated[int, Field(ge=1, le=2**16), Tunable(16, 32)] = 16
    second_window: Annotated[int, Field(ge=1, le=2**16), Tunable(4, 8)] = 4
    qk_norm: bool = False
    score: Score = "product"
    rope: Annotated[float, Field(ge=0, le=1)] = 0.0
    rope_base: Annotated[float, Field(gt=1, le=1e12)] = 10000.0

    def unread(self) -> Mapping[str, str]:
        found = {} if self.rope else {"rope_base": "rope=0: use rope above 0"}
        if self.score == "product":
            found["rope"] = 'score="product", which changes where all three are turned: use score="determinant"'
        return found
