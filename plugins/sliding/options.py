"""Options of sliding-window attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class SlidingOptions(MixerOptions):
    """Options of the mixer `sliding`.

    ``window``: tokens seen, the own one included.
    ``sinks``: first tokens of the sequence that are always seen.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    ``qk_norm``: RMSNorm of each head of q and k, before the rotation.
    ``n_kv_heads``: key heads; 0 for the backbone's.
    ``output_gate``: each channel of each head times a sigmoid made from the token.
    ``sink_logit``: a learned logit a head joins the sum of the softmax, with no value.
    """

    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256)] = 128
    sinks: Annotated[int, Field(ge=0, le=2**24), Tunable(0, 4)] = 0
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    n_kv_heads: int = Field(default=0, ge=0, le=2**16)
    output_gate: bool = False
    sink_logit: bool = False

    def unread(self) -> Mapping[str, str]:
        if self.window + self.sinks == 1:
            return {"rope_base": "window=1: use window above 1"}  # a token alone is no distance away
        return {} if self.rope else {"rope_base": "rope=0: use rope above 0"}
