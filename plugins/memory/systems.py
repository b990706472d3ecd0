"""What the field published that `memory` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "ttt-linear": System(
        rule="S is a matrix trained on |f(k; S) - v|^2, a gradient step a mini-batch", source="arXiv 2407.04620"
    ),
    "ttt-mlp": System(rule="S is a network of two layers trained on |f(k; S) - v|^2", source="arXiv 2407.04620"),
    "titans": System(rule="S is a network of two layers trained with momentum, and forgets", source="arXiv 2501.00663"),
}
