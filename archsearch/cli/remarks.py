"""Remarks on what was measured: sparsity that did not act, and mixers that were judged as they decode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from archsearch.errors import SpecError
from archsearch.exercise import Unexercised
from archsearch.mixer import Law, Resolver

_DECODING_LAWS: tuple[Law, ...] = ("step", "split")


def not_exercised(found: Iterable[Unexercised], reason: str = "") -> list[str]:
    """A line for each layer whose sparsity did not act, once, and none for what `reason` tells already."""
    return list(dict.fromkeys(f"not exercised: {one}" for one in found if one.sees not in reason))


def judged(payloads: Iterable[Mapping[str, Any]], resolver: Resolver) -> list[str]:
    """A line for each architecture among measurements' plain data that was judged by decoding, and why it was.

    Data of older versions do not say how they were judged: it was by the forward pass.
    """
    by_steps = [payload for payload in payloads if payload.get("judged") == "steps"]
    mixers = dict.fromkeys(tuple(layer["mixer"] for layer in payload["arch"]["layers"]) for payload in by_steps)
    return list(dict.fromkeys(f"judged by prefill and steps: {_why(names, resolver)}" for names in mixers))


def _why(mixers: Iterable[str], resolver: Resolver) -> str:
    broken = []
    for name in dict.fromkeys(mixers):
        try:
            laws = resolver.resolve(name).plugin.broken_laws
        except SpecError:  # measured with a plugin that is not installed here
            continue
        broken += [f'law "{law}" of {name}' for law in _DECODING_LAWS if law in laws]
    if not broken:
        return "a mixer of it breaks a law by design"
    return " and ".join(broken) + (" are" if len(broken) > 1 else " is") + " broken by design"
