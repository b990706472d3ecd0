"""Options of the gated short convolution."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from archsearch import MixerOptions, Tunable


class ConvOptions(MixerOptions):
    """Options of the mixer `conv`.

    ``width``: tokens that an output sees, its own among them.
    """

    width: Annotated[int, Field(ge=1, le=64), Tunable(3, 4, 8)] = 3
