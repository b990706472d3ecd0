"""What the field published that `sliding` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "sliding": System(
        rule="softmax over the last W tokens, and the first ones as sinks", source="arXiv 2004.05150, arXiv 2309.17453"
    ),
    "sliding-sink": System(
        rule="softmax over the last W tokens, with a learned logit for nothing in its sum (gpt-oss)",
        source="arXiv 2508.10925",
    ),
}
