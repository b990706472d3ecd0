"""Options of native sparse attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable

from .sizes import NsaSizes


class NsaOptions(MixerOptions):
    """Options of the mixer `nsa`.

    ``block_size``: tokens of a block, compressed to a mean and chosen as one.
    ``top_k``: blocks that are chosen, the own one and block 0 included.
    ``window``: tokens seen in any case, the own one included.
    ``rope``: share of a head's channels that are rotated by their position; 0 carries no position at all.
    ``branch_kv``: each branch has keys and values of its own.
    ``compress``: what a block is compressed to: "mean", of its keys and of its values; "mlp": what a network of two
    layers makes of them, each with a learned position in the block.
    ``length``: tokens that are compressed to one; 0 for those of a block.
    ``stride``: tokens from one compressed key's first to the next one's; 0 for as many as it is of: none overlap.
    ``local``: how many of the chosen blocks are the last ones, the own one included.
    """

    later: ClassVar[tuple[str, ...]] = ("branch_kv", "compress", "length", "stride", "local")

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(32, 64, 128)] = 64
    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(2, 4, 8, 16)] = 8
    window: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256, 512)] = 256
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.25, 1.0)] = 1.0

    branch_kv: bool = False
    compress: Literal["mean", "mlp"] = "mean"
    length: int = Field(default=0, ge=0, le=2**24)
    stride: int = Field(default=0, ge=0, le=2**24)
    local: int = Field(default=1, ge=1, le=2**16)

    @property
    def sizes(self) -> NsaSizes:
        """What each branch sees."""
        return NsaSizes(
            block_size=self.block_size,
            top_k=self.top_k,
            window=self.window,
            local=self.local,
            length=self.length,
            stride=self.stride,
        )

    @property
    def plain(self) -> bool:
        """Whether kernels serve it: means of the blocks that are chosen, of the keys and values of all branches."""
        return self.sizes.plain and self.compress == "mean" and not self.branch_kv

    @model_validator(mode="after")
    def _fit(self) -> NsaOptions:
        """Refuses options that make no sense together, with the remedy."""
        of = self.length or self.block_size
        compressed = f"length={of}" if self.length else f"block_size={of}"
        every = f"stride={self.stride}" if self.stride else f"{compressed}, which is the stride too"
        for named, value in ((compressed, of), (f"block_size={self.block_size}", self.block_size)):
            if value % (self.stride or of):
                raise ValueError(f"{named} is no multiple of {every}: give a stride that divides length and block_size")
        if self.local > 1 and self.top_k <= self.local:
            raise ValueError(f"local={self.local} of top_k={self.top_k} leaves none for block 0: use a larger top_k")
        if self.length and self.length == self.block_size:
            raise ValueError(f"length={self.length} is that of a block anyway: leave it out, or use another")
        if self.stride and self.stride == (self.length or self.block_size):
            raise ValueError(f"stride={self.stride} is what is compressed anyway: leave it out, or use a smaller one")
        return self
