"""What the field published that `ssm` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "mamba1": System(
        rule="h = exp(dt a) h + dt b u for each channel, dt, b and c of the token", source="arXiv 2312.00752"
    ),
    "mamba3": System(
        rule="h = a h + what the last and this token write, weighed by a trapezoid, in turning pairs of states",
        source="arXiv 2603.15569",
    ),
    "s4d": System(rule="h = exp(dt a) h + u with fixed complex a, the same for every token", source="arXiv 2206.11893"),
    "s4d-real": System(rule="h = exp(dt a) h + u with fixed real a", source="arXiv 2206.11893"),
}
