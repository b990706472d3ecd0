"""Which options of the additive forms go together, told in a sentence where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsearch.errors import listing
from archsearch.notation import format_value

Chosen = Mapping[str, Any]
"""Options by name."""
_OF_ONE_STATE = ("levels", "bonus", "token_shift", "skip", "rope", "first_values")
"""Options that memories go without."""


def check_additive(options: Chosen) -> None:
    """Raises `ValueError` that names the options, their values and the remedy."""
    _check_key(options)
    _check_write(options)
    _check_memories(options)
    if options["levels"] and (options["bonus"] or options["normalizer"] != "none"):
        raise ValueError(
            f"{said(options, 'levels', 'bonus', 'normalizer')}: a hierarchy of states is read by weights of its own, "
            "set bonus = false and normalizer = none"
        )


def said(options: Chosen, *names: str) -> str:
    """The options of those names with their values, as a sentence begins."""
    return ", ".join(f"{name} = {format_value(options[name])}" for name in names)


def _check_key(options: Chosen) -> None:
    hebbian, decay = options["update"] == "hebbian", options["decay"]
    if options["key"] == "forget" and not (hebbian and decay == "channel"):
        raise ValueError(
            f"{said(options, 'key', 'update', 'decay')}: such a key is 1 - the forget gate of its channel, set update "
            "= hebbian and decay = channel"
        )
    if options["feature_map"] == "favor" and (not hebbian or decay == "channel"):
        raise ValueError(
            f"{said(options, 'feature_map', 'update', 'decay')}: random features have neither length 1 nor gates of "
            "their own, set update = hebbian and decay to none, constant or head"
        )
    if options["features"] and options["feature_map"] == "none":
        raise ValueError(f"{said(options, 'features')} needs feature_map = favor, whose number it is")


def _check_write(options: Chosen) -> None:
    hebbian, normalizer = options["update"] == "hebbian", options["normalizer"]
    if options["write"] == "exp" and not (hebbian and options["decay"] == "head"):
        raise ValueError(
            f"{said(options, 'write', 'update', 'decay')}: its stabiliser goes by the gates of heads, set update = "
            "hebbian and decay = head"
        )
    if (options["write"] == "exp") != (normalizer == "max"):
        raise ValueError(
            f"{said(options, 'write', 'normalizer')}: write = exp and normalizer = max need each other, set both or "
            "neither"
        )
    positive = options["feature_map"] == "favor" or options["activation"] in ("relu", "elu1")
    if normalizer == "sum" and not (hebbian and positive):
        raise ValueError(
            f"{said(options, 'normalizer', 'update', 'activation')}: it divides by a sum of products, which must be "
            "positive, set update = hebbian, and activation = elu1 or feature_map = favor"
        )
    if options["bonus"] and not (hebbian and normalizer == "none"):
        raise ValueError(
            f"{said(options, 'bonus', 'update', 'normalizer')}: it weighs what the token adds, set update = hebbian "
            "and normalizer = none"
        )


def _check_memories(options: Chosen) -> None:
    memories, used = options["memories"], options["memories_used"]
    if used > memories or (memories > 0) != (used > 0):
        raise ValueError(
            f"{said(options, 'memories_used', 'memories')}: set memories_used from 1 to memories, or both to 0"
        )
    if options["shared_memory"] and not memories:
        raise ValueError("shared_memory = true stands beside routed memories: set memories and memories_used")
    plain: dict[str, tuple[Any, ...]] = {"write": ("plain", "dt"), "key": ("projected",), "feature_map": ("none",)}
    plain |= {"normalizer": ("none",), **dict.fromkeys(_OF_ONE_STATE, (0,))}
    other = [name for name, allowed in plain.items() if options[name] not in allowed]
    if memories and other:
        raise ValueError(
            f"{said(options, 'memories', *other)}: memories have keys, values and reads of their own, leave "
            f"{listing(other)} at the default"
        )
