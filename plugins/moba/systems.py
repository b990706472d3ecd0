"""What the field published that `moba` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "moba": System(
        rule="softmax over the own block and the k past blocks whose mean key answers best", source="arXiv 2502.13189"
    ),
}
