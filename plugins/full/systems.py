"""What the field published that `full` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "full": System(
        rule="softmax over all tokens so far; positions by none, partial or full rotary embedding",
        source="arXiv 1706.03762",
    ),
}
