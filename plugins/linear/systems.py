"""What the field published that `linear` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "linear": System(rule="S += k v^T", source="arXiv 2006.16236"),
    "retnet": System(rule="S = a S + k v^T, a constant for each head", source="arXiv 2307.08621"),
    "lightning": System(
        rule="S = a S + k v^T, a constant for each head and layer (MiniMax-01)", source="arXiv 2501.08313"
    ),
    "mamba2": System(rule="S = a S + dt k v^T, a and dt of the token and head", source="arXiv 2405.21060"),
    "gla": System(rule="S = diag(a) S + k v^T, a of the token and channel", source="arXiv 2312.06635"),
    "deltanet": System(rule="S = (I - b k k^T) S + b k v^T", source="arXiv 2406.06484"),
    "gated-deltanet": System(
        rule="S = a (I - b k k^T) S + b k v^T, a of the token and head", source="arXiv 2412.06464"
    ),
    "kda": System(rule="S = (I - b k k^T) diag(a) S + b k v^T, a of the token and channel", source="arXiv 2510.26692"),
}
