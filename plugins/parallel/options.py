"""Options of mixers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable
from archsearch.mixer import Layer

Join = Literal["mean", "sum", "gate"]


class ParallelOptions(MixerOptions):
    """Options of the mixer `parallel`.

    ``a``: the first mixer, with its options.
    ``b``: the second mixer, with its options.
    ``more``: mixers beside them.
    ``join``: how their outputs become one: "mean" of each, normed and scaled; "sum" as they are; "gate", the first
    normed times the sigmoid of each other one, normed.
    ``share``: share of the heads that the first has, the others having the rest in equal parts; 0 for all heads each.
    ``project``: each mixer has its own output projection, or they share one behind the join, of what theirs would read.
    ``a_in``: a constant by which the input of the first is multiplied.
    ``b_in``: a constant by which the input of the second is multiplied.
    ``a_out``: a constant by which the output of the first is multiplied, where they are summed.
    ``b_out``: a constant by which the output of the second is multiplied, where they are summed.
    """

    later: ClassVar[tuple[str, ...]] = ("a_in", "b_in", "a_out", "b_out", "project")

    a: Annotated[Layer, Tunable("full", "sliding")] = "sliding"  # type: ignore[assignment]
    b: Annotated[Layer, Tunable("mamba2", "gated-deltanet", "kda")] = "mamba2"  # type: ignore[assignment]
    more: tuple[Layer, ...] = ()
    join: Annotated[Join, Tunable("mean", "sum", "gate")] = "mean"
    share: Annotated[float, Field(ge=0, le=0.99), Tunable(0.0, 0.5)] = 0.0
    a_in: float = Field(default=1.0, ge=-1e6, le=1e6)
    b_in: float = Field(default=1.0, ge=-1e6, le=1e6)
    a_out: float = Field(default=1.0, ge=-1e6, le=1e6)
    b_out: float = Field(default=1.0, ge=-1e6, le=1e6)
    project: Literal["each", "shared"] = "each"

    def unread(self) -> Mapping[str, str]:
        normed = f'join="{self.join}", which norms outputs: use join="sum"'
        return {} if self.join == "sum" else dict.fromkeys(("a_out", "b_out"), normed)

    @model_validator(mode="after")
    def _nothing_is_taken_away(self) -> ParallelOptions:
        for name in ("a_in", "b_in", "a_out", "b_out"):
            if not getattr(self, name):
                raise ValueError(
                    f"{name} = 0 leaves nothing of its mixer: choose another number, or do without the mixer"
                )
        return self

    @property
    def input_scales(self) -> tuple[float, ...]:
        """Of the input of each mixer."""
        return self.a_in, self.b_in, *[1.0] * len(self.more)

    @property
    def output_scales(self) -> tuple[float, ...]:
        """Of the output of each mixer."""
        return self.a_out, self.b_out, *[1.0] * len(self.more)
