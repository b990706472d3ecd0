"""Rotation: options of one that may be stretched to long contexts, and which of them make no sense together."""

from __future__ import annotations

from typing import Protocol


class Rotation(Protocol):
    """Options of a mixer that rotates: the share of a head's channels, the base of the frequencies, and how many times
    the positions that it was trained on the rotation is stretched to (YaRN), with those; 1 for none."""

    @property
    def rope(self) -> float: ...
    @property
    def rope_base(self) -> float: ...
    @property
    def rope_factor(self) -> float: ...
    @property
    def rope_trained(self) -> int: ...


def unread_rotation(options: Rotation, *more: str) -> dict[str, str]:
    """Of `MixerOptions.unread` what is the rotation's; `more` are others that say nothing without one."""
    if options.rope:
        return {"rope_trained": "rope_factor=1: use rope_factor above 1"} if options.rope_factor == 1 else {}
    return dict.fromkeys(("rope_base", "rope_factor", "rope_trained", *more), "rope=0: use rope above 0")


def stretch_refusal(options: Rotation) -> str | None:
    """Why the rotation cannot be stretched as the options say, with the remedy; None where it can."""
    if options.rope_factor > 1 and not options.rope_trained:
        return f"rope_factor={options.rope_factor:g} is of the positions that it was trained on: give rope_trained"
    return None
