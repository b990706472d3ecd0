"""Turning: the rotation that the options say, of heads, of a key beside latents, and of small heads."""

from __future__ import annotations

from archsearch.ops.rotary import Rotary

from .options import IndexedOptions


def rotary_of(width: int, fraction: float, options: IndexedOptions, *, learned: bool) -> Rotary:
    """Of rows of that width."""
    return Rotary(
        width,
        fraction=fraction,
        base=options.rope_base,
        factor=options.rope_factor,
        trained=options.rope_trained,
        learned=learned,
    )
