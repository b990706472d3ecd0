"""Pieces of a sequence, of a size that a cache of the processor or the memory can hold."""

from __future__ import annotations

PIECE_ELEMENTS = 2**22
"""Scores, or numbers of gathered keys, that are worked on at a time."""


def pieces(tokens: int, elements: int, longest: int) -> list[slice]:
    """Slices of `tokens`, of each of which `elements` are held at a time, and of `longest` tokens at most."""
    step = min(longest, max(1, PIECE_ELEMENTS // max(1, elements)))
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]
