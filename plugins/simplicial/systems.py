"""What the field published that `simplicial` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "simplicial": System(
        rule="softmax over pairs of tokens of two windows by q * k * k2, summing v * v2", source="arXiv 2507.02754"
    ),
}
