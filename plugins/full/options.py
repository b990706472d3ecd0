"""Options of full attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from archsearch import MixerOptions, Tunable

Weighting = Literal["softmax", "forgetting", "sigmoid", "stick-breaking", "path", "path-forgetting", "delta"]
"""How a token weighs what came before it, by the names of the README."""


class FullOptions(MixerOptions):
    """Options of the mixer `full`.

    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    ``qk_norm``: RMSNorm of each head of q and k, before the rotation.
    ``n_kv_heads``: key heads; 0 for the backbone's.
    ``output_gate``: each channel of each head times a sigmoid made from the token.
    ``weighting``: how a token weighs what came before it.
    ``sigmoid_length``: n of the offset -log n of "sigmoid"; 0 for the number of tokens that are seen.
    ``reflection_rank``: numbers that a reflection of "path" is made from; 0 makes it from the token itself.
    ``reflection_conv``: tokens that a reflection of "path" is a convolution of; 1 for its own alone.
    """

    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 0.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    n_kv_heads: int = Field(default=0, ge=0, le=2**16)
    output_gate: bool = False
    weighting: Weighting = "softmax"
    sigmoid_length: int = Field(default=0, ge=0, le=2**40)
    reflection_rank: int = Field(default=32, ge=0, le=2**16)
    reflection_conv: int = Field(default=3, ge=1, le=2**10)

    def unread(self) -> Mapping[str, str]:
        given = f'weighting="{self.weighting}"'
        found = {} if self.rope else {"rope_base": "rope=0: use rope above 0"}
        if self.weighting != "sigmoid":
            found["sigmoid_length"] = f'{given}: use weighting="sigmoid"'
        if not self.reflects:
            found |= dict.fromkeys(("reflection_rank", "reflection_conv"), f'{given}: use weighting="path"')
        return found

    @property
    def forgets(self) -> bool:
        """Whether each token has a forget gate."""
        return self.weighting in ("forgetting", "path-forgetting")

    @property
    def reflects(self) -> bool:
        """Whether keys are moved by the tokens that come after them."""
        return self.weighting in ("path", "path-forgetting")
