"""What the field published that `parallel` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "hymba": System(rule="attention and a state space side by side, normed and averaged", source="arXiv 2411.13676"),
    "falcon-h1": System(rule="attention and a state space side by side, summed", source="arXiv 2507.22448"),
    "titans-mag": System(rule="a window gated by a memory that learns as it reads", source="arXiv 2501.00663"),
    "resona": System(
        rule="a recurrence beside softmax over chunks of the context that it looks up", source="arXiv 2503.22913"
    ),
}
