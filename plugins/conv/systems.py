"""What the field published that `conv` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "lfm": System(rule="a causal convolution of three tokens between two gates", source="arXiv 2511.23404"),
}
