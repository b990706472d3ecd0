"""Options of attention over compressed entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable
from archsearch.rotation import stretch_refusal, unread_rotation


class CompressedOptions(MixerOptions):
    """Options of the mixer `compressed`.

    ``block_size``: tokens that become one entry, when the last of them is there.
    ``overlap``: an entry is made of the block before too, by projections of its own.
    ``window``: last tokens that are seen as they are, the own one included; 0 for none.
    ``top_k``: entries that an index chooses; 0 sees every entry, without an index.
    ``index_heads``: small heads of the index.
    ``index_dim``: channels of each, and of the index's own entries.
    ``sink``: a learned logit for each head that takes part in the softmax, and has no value.
    ``norm``: RMSNorm of entries and of the window's rows, and of each query head without weights.
    ``q_rank``: numbers that queries are made from; 0 makes them from the token itself.
    ``rope``: share of a head's channels that are rotated, of the index too; outputs are turned back.
    ``rope_base``: base of the rotation's frequencies.
    ``rope_factor``: how many times the positions it was trained on the rotation is stretched to (YaRN); 1 for none.
    ``rope_trained``: the positions that it was trained on, where it is stretched.
    ``out_groups``: groups of heads that the output is made of through ``out_rank`` numbers each; 0 for one matrix.
    ``out_rank``: numbers that a group's output is made through.
    """

    later: ClassVar[tuple[str, ...]] = ("rope_factor", "rope_trained", "out_groups", "out_rank")

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(4, 16, 32)] = 32
    overlap: bool = False
    window: Annotated[int, Field(ge=0, le=2**24), Tunable(16, 32, 64)] = 32
    top_k: Annotated[int, Field(ge=0, le=2**24), Tunable(0, 8, 16)] = 0
    index_heads: Annotated[int, Field(ge=1, le=2**10), Tunable(2, 4)] = 4
    index_dim: Annotated[int, Field(ge=1, le=2**16), Tunable(16, 32)] = 16
    sink: bool = True
    norm: bool = True
    q_rank: int = Field(default=0, ge=0, le=2**16)
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.5)] = 0.5
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    rope_factor: float = Field(default=1.0, ge=1, le=1e6)
    rope_trained: int = Field(default=0, ge=0, le=2**30)
    out_groups: int = Field(default=0, ge=0, le=2**16)
    out_rank: int = Field(default=0, ge=0, le=2**16)

    @property
    def series(self) -> int:
        """Blocks that an entry is made of: its own, and with an overlap the one before."""
        return 2 if self.overlap else 1

    @property
    def parts(self) -> int:
        """What is kept of a token for an entry: its content, and its gate where there is more than one to weigh."""
        return 1 if self.block_size * self.series == 1 else 2

    def unread(self) -> Mapping[str, str]:
        found = {} if self.top_k else dict.fromkeys(("index_heads", "index_dim"), "top_k=0: use top_k above 0")
        if not self.out_groups:
            found["out_rank"] = "out_groups=0: use out_groups above 0"
        return found | unread_rotation(self)

    @model_validator(mode="after")
    def _sees_something(self) -> CompressedOptions:
        if self.block_size > 1 and not self.window and not self.sink:
            raise ValueError(
                f"window=0 and sink=false leave the first tokens nothing to see before a block of {self.block_size} is "
                "complete: use window of 1 at least, sink=true, or block_size=1"
            )
        unstretched = stretch_refusal(self)
        if unstretched is not None:
            raise ValueError(unstretched)
        if self.out_groups and not self.out_rank:
            raise ValueError(f"out_groups={self.out_groups} is of numbers that each is made to: give out_rank")
        return self
