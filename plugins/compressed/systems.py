"""What the field published that `compressed` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "hca": System(
        rule="softmax over one gated sum for each block of tokens, and over a window, with a sink",
        source="DeepSeek-V4's released code",
    ),
    "csa": System(
        rule="the same over short overlapping blocks, of which an index chooses k",
        source="DeepSeek-V4's released code",
    ),
}
