"""What the field published that `zorder` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "zeta": System(
        rule="a Cauchy kernel over the k keys that lie nearest along a Z-order curve, and the mean of the past",
        source="arXiv 2501.14577",
    ),
}
