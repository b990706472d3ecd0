"""Options of attention to the nearest keys along a Z-order curve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable


class ZOrderOptions(MixerOptions):
    """Options of the mixer `zorder`.

    ``top_k``: keys that a query sees of the chunks before its own.
    ``chunk``: tokens of a chunk; keys are chosen of complete chunks before a query's own.
    ``own``: the tokens of its own chunk, up to itself, are seen too.
    ``key_dim``: channels of a query and a key.
    ``bits``: bits of a channel's place on the curve.
    ``hidden``: width of the networks that make queries and keys.
    """

    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(8, 16, 32)] = 16
    chunk: Annotated[int, Field(ge=1, le=2**24), Tunable(8, 16)] = 8
    own: Annotated[bool, Tunable(False, True)] = True
    key_dim: Annotated[int, Field(ge=1, le=31), Tunable(2, 3, 4)] = 3
    bits: int = Field(default=8, ge=1, le=31)
    hidden: int = Field(default=32, ge=1, le=2**16)

    @model_validator(mode="after")
    def _fits_a_code(self) -> ZOrderOptions:
        if self.key_dim * self.bits > 62:
            taken = f"key_dim={self.key_dim} with bits={self.bits} takes {self.key_dim * self.bits} bits"
            raise ValueError(f"{taken}, and a place on the curve has 62: use fewer of either")
        return self
