"""Options of mixers side by side."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from archsearch import MixerOptions, Tunable
from archsearch.mixer import Layer

Join = Literal["mean", "sum", "gate"]


class ParallelOptions(MixerOptions):
    """Options of the mixer `parallel`.

    ``a``: the first mixer, with its options.
    ``b``: the second.
    ``more``: mixers beside them.
    ``join``: how their outputs become one: "mean" of each, normed and scaled; "sum" as they are; "gate", the first
    normed times the sigmoid of each other one, normed.
    ``share``: share of the heads that the first has, the others having the rest in equal parts; 0 for all heads each.
    """

    a: Annotated[Layer, Tunable("full", "sliding")] = "sliding"  # type: ignore[assignment]
    b: Annotated[Layer, Tunable("mamba2", "gated-deltanet", "kda")] = "mamba2"  # type: ignore[assignment]
    more: tuple[Layer, ...] = ()
    join: Annotated[Join, Tunable("mean", "sum", "gate")] = "mean"
    share: Annotated[float, Field(ge=0, le=0.99), Tunable(0.0, 0.5)] = 0.0
