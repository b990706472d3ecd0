"""Rotation of q and k by the positions of their tokens: what it goes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsearch.errors import listing
from archsearch.notation import format_value

from .additive.rules import said

_BESIDE: Mapping[str, tuple[Any, ...]] = {
    "decay": ("none", "constant", "head"),
    "removal": ("key", "feedback"),
    "bonus": (False,),
    "output_bonus": (False,),
}
"""What weighs both channels of a rotated pair alike, so that a token meets another by how far apart they stand."""


def check_rotation(options: Mapping[str, Any]) -> None:
    """Raises `ValueError` where q and k are rotated beside what that makes no sense with, with the remedy."""
    if not options["rope"]:
        return
    for name, allowed in _BESIDE.items():
        if options[name] not in allowed:
            raise ValueError(
                f"{said(options, 'rope', name)}: the two channels of a rotated pair would be weighed apart, and what "
                f"tokens read would depend on where they stand: choose {name} = {listing(map(format_value, allowed))}, "
                "or set rope = 0"
            )
    if options["normalizer"] == "sum" and options["feature_map"] == "none":
        raise ValueError(
            f"{said(options, 'rope', 'normalizer', 'feature_map')}: it divides by a sum of products, which of rotated "
            "keys need not be positive: set feature_map = favor or normalizer = none, or rope = 0"
        )
