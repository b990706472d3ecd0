"""Backbones that were drawn, carried up: which one a candidate has, and what it becomes on a rung's backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsearch.arch import ArchSpec, ModelSpec, digest_of
from archsearch.errors import SpecError
from archsearch.search.ladder.stretch import STEP
from archsearch.search.space import Space

COUNTS = ("n_heads", "n_kv_heads", "head_dim", "n_experts", "experts_per_token")
"""Drawn sizes that keep their ratio to that of ``[model]`` and must come out whole."""

WIDTHS = ("ffn_dim", "expert_dim")
"""Drawn widths of channel mixers, which keep that ratio to the nearest multiple of `STEP`."""


def drawn_values(arch: ArchSpec, space: Space) -> dict[str, Any]:
    """What a candidate of the search drew of ``[space.backbone]``, by key; nothing where it stands on ``[model]``'s."""
    if not space.backbones.listed:
        return {}
    own = digest_of(arch.model.trained())
    for backbone in space.backbones.all:
        if digest_of(backbone.model.trained()) == own:
            return dict(backbone.values)
    return {}


def values_on_rung(drawn: Mapping[str, Any], before: ModelSpec, now: ModelSpec) -> dict[str, Any]:
    """Values that were drawn where ``[model]`` is `before`, as they are where it is `now`.

    Sizes keep their ratio to the one of ``[model]``, given or derived; all else stays. Raises `SpecError`, naming the
    key, for a count that would be no whole number.
    """
    found = dict(drawn)
    for key in (*COUNTS, *WIDTHS):
        first, second = getattr(before, key), getattr(now, key)
        if key not in drawn or first == second:
            continue
        if key in WIDTHS:
            found[key] = max(STEP, round(drawn[key] * second / first / STEP) * STEP)
        elif drawn[key] * second % first:
            raise SpecError(
                f"space.backbone.{key} = {drawn[key]} keeps its ratio to that of [model], {key} = {first} below and "
                f"{second} here, and would be {drawn[key] * second / first:g}: give the rung a multiple of {first}, or "
                "drop the value"
            )
        else:
            found[key] = drawn[key] * second // first
    return found


def model_on_rung(drawn: Mapping[str, Any], before: ModelSpec, now: ModelSpec) -> ModelSpec:
    """The backbone of a candidate that drew `drawn`, on a rung whose own is `now`; raises `SpecError`."""
    return now.changed(values_on_rung(drawn, before, now)) if drawn else now
