"""What the field published that `nsa` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "nsa": System(
        rule="softmax over block summaries, over the best blocks and over a window, each gated by the token",
        source="arXiv 2502.11089",
    ),
}
