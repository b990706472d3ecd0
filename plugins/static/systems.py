"""What the field published that `static` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "longformer": System(
        rule="softmax over a window of blocks and the first ones, which all see", source="arXiv 2004.05150"
    ),
    "bigbird": System(
        rule="softmax over a window of blocks, the first ones, and some drawn at random once", source="arXiv 2007.14062"
    ),
}
