"""NsaSizes: the sizes of native sparse attention: what each of its branches sees."""

from __future__ import annotations

from dataclasses import dataclass

from archsearch.errors import OptionsError


@dataclass(frozen=True, kw_only=True)
class NsaSizes:
    """``block_size`` tokens a block, compressed to a mean and chosen as one; ``top_k`` blocks that are chosen; the last
    ``window`` tokens, seen in any case. Raises `OptionsError` for one below 1."""

    block_size: int
    top_k: int
    window: int

    @property
    def flat(self) -> tuple[int, int, int]:
        """The numbers side by side, as custom ops of torch take them."""
        return self.block_size, self.top_k, self.window

    def __post_init__(self) -> None:
        for name, value in (("block_size", self.block_size), ("top_k", self.top_k), ("window", self.window)):
            if value < 1:
                raise OptionsError(f"nsa_attention({name}={value}): must be at least 1")
