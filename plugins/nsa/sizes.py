"""NsaSizes: the sizes of native sparse attention: what each of its branches sees."""

from __future__ import annotations

from dataclasses import dataclass

from archsearch.errors import OptionsError


@dataclass(frozen=True, kw_only=True)
class NsaSizes:
    """``block_size`` tokens a block, chosen as one; ``top_k`` blocks that are chosen, of which ``local`` are the last
    ones; the last ``window`` tokens, seen in any case; ``length`` tokens that are compressed to one key and value,
    every ``stride`` tokens, 0 for a block's, and for as many as are compressed. Raises `OptionsError` for sizes that
    cannot be."""

    block_size: int
    top_k: int
    window: int
    local: int = 1
    length: int = 0
    stride: int = 0

    @property
    def of(self) -> int:
        """Tokens that one compressed key is of."""
        return self.length or self.block_size

    @property
    def every(self) -> int:
        """Tokens from one compressed key's first to the next one's."""
        return self.stride or self.of

    @property
    def plain(self) -> bool:
        """Whether what is compressed and what is chosen are the same blocks, and the own one is alone always chosen
        beside block 0, as the kernels have it."""
        return self.of == self.every == self.block_size and self.local == 1

    def check_plain(self) -> None:
        """Raises `OptionsError` for sizes that `nsa_attention` does not take."""
        if not self.plain:
            raise OptionsError(
                f"nsa_attention({self}): blocks are chosen as they are compressed, with a local one: the layer has "
                "other sizes"
            )

    def complete(self, tokens: int) -> int:
        """Compressed keys of so many tokens."""
        return max(0, (tokens - self.of) // self.every + 1)

    @property
    def flat(self) -> tuple[int, int, int]:
        """The numbers side by side, as custom ops of torch take them."""
        return self.block_size, self.top_k, self.window

    def __post_init__(self) -> None:
        for name, value in (("block_size", self.block_size), ("top_k", self.top_k), ("window", self.window)):
            if value < 1:
                raise OptionsError(f"nsa_attention({name}={value}): must be at least 1")
        if self.local < 1 or (self.local > 1 and self.top_k <= self.local):
            raise OptionsError(
                f"nsa_attention(local={self.local}, top_k={self.top_k}): at least 1, and fewer than top_k, as block 0 "
                "is chosen too"
            )
        if self.length < 0 or self.stride < 0 or self.of % self.every or self.block_size % self.every:
            raise OptionsError(
                f"nsa_attention(length={self.length}, stride={self.stride}, block_size={self.block_size}): the stride "
                "must divide what is compressed and what is chosen"
            )
