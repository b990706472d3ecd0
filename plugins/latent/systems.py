"""What the field published that `latent` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "mla": System(
        rule="keys and values from one latent a token, a rotated key of all heads beside it", source="arXiv 2405.04434"
    ),
    "mla-nope": System(rule="MLA whose shared key is not rotated (Kimi Linear)", source="arXiv 2510.26692"),
}
