"""What the field published that `none` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "none": System(rule="no token mixing", source="arXiv 2411.19146"),
}
