"""What the field published that `evicting` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "h2o": System(
        rule="softmax over the last tokens and those that were attended to most; the others are forgotten",
        source="arXiv 2306.14048",
    ),
}
