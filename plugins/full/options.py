"""Options of full attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class FullOptions(MixerOptions):
    """``rope``: the rotated fraction of a head, 0 for no positions at all. ``n_kv_heads``: 0 for the model's."""

    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 0.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    n_kv_heads: int = Field(default=0, ge=0, le=2**16)
