"""Options of multi-head latent attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable


class LatentOptions(MixerOptions):
    """Options of the mixer `latent`.

    ``kv_rank``: numbers of the latent that keys and values of all heads are made from.
    ``shared_dim``: channels of the key that all heads share beside the latent; 0 for none.
    ``rope``: share of the shared key's channels that are rotated by their position; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    ``q_rank``: numbers that queries are made from; 0 makes them from the token itself.
    """

    kv_rank: Annotated[int, Field(ge=1, le=2**16), Tunable(32, 64, 128)] = 64
    shared_dim: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 16, 32)] = 0
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 0.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    q_rank: int = Field(default=0, ge=0, le=2**16)

    def unread(self) -> Mapping[str, str]:
        return {} if self.rope else {"rope_base": "rope=0: use rope above 0"}

    @model_validator(mode="after")
    def _turns_something(self) -> LatentOptions:
        if self.rope and not self.shared_dim:
            raise ValueError(f"rope={self.rope} turns the shared key: use shared_dim above 0, or rope=0")
        return self

    @property
    def row(self) -> int:
        """Numbers that the cache keeps of a token."""
        return self.kv_rank + self.shared_dim
