"""Options of attention whose cache several layers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from archsearch import MixerOptions, Tunable


class SharedOptions(MixerOptions):
    """Options of the mixers `shared-kv` and `shared`: a reader reads the nearest writer before it of the same options.

    ``window``: last tokens that are seen and kept; 0 for all.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    ``qk_norm``: RMSNorm of each head of q and k, before the rotation.
    ``v_norm``: RMSNorm of each head of v, without weights.
    ``kv_norm``: RMSNorm of what keys and values are made from.
    """

    later: ClassVar[tuple[str, ...]] = ("v_norm", "kv_norm")

    window: Annotated[int, Field(ge=0, le=2**24), Tunable(0, 64)] = 0
    rope: float = Field(default=1.0, ge=0, le=1)
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    v_norm: bool = False
    kv_norm: bool = False

    def unread(self) -> Mapping[str, str]:
        return {} if self.rope else {"rope_base": "rope=0: use rope above 0"}
