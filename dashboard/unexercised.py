"""Layers that were not exercised, in sentences: each once, with the tasks that are too short for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archsearch.errors import ArchsearchError, foreign_code
from archsearch.exercise import Unexercised


def unexercised_layers(found: Iterable[Unexercised]) -> list[str]:
    """``sliding(window=64) sees all of up to 64 tokens: mqar has 48, copy has 32``, a sentence a layer."""
    tasks: dict[str, dict[str, None]] = {}
    for one in found:
        lengths = tasks.setdefault(one.sees, {})
        if one.seq_len:
            lengths[one.length] = None
    return [": ".join(filter(None, (sees, ", ".join(lengths)))) for sees, lengths in tasks.items()]


def read_unexercised(stored: object) -> list[Unexercised]:
    """What a frame holds of a trial; entries of another shape are left out."""
    entries = stored if isinstance(stored, list | tuple) else []
    return [one for entry in entries if (one := _read(entry)) is not None]


def _read(entry: object) -> Unexercised | None:
    if isinstance(entry, Unexercised):
        return entry
    if not isinstance(entry, Mapping):
        return None
    try:
        with foreign_code("a layer that was not exercised", "from_json"):
            return Unexercised.from_json(entry)
    except ArchsearchError:
        return None
