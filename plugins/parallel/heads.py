"""How the heads of a layer are shared out between the mixers in it, and what of them is joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archsearch.errors import OptionsError
from archsearch.mixer import ModelShape


def shared_out(share: float, shape: ModelShape, index: int, count: int) -> ModelShape:
    """The sizes of mixer `index` of `count`: `share` of the heads and key heads for the first, an equal part of the
    rest for each other; all of them where `share` is 0. Raises `OptionsError` for parts that are no whole heads."""
    if not share:
        return shape
    part = share if index == 0 else (1 - share) / (count - 1)
    heads, kv_heads = (_whole(part, share, name, getattr(shape, name), count) for name in ("n_heads", "n_kv_heads"))
    if heads % kv_heads:
        raise OptionsError(f"share = {share:g} leaves {heads} heads over {kv_heads} key heads: choose one that divides")
    return replace(shape, n_heads=heads, n_kv_heads=kv_heads)


def joined_width(names: Sequence[str], widths: Sequence[int | None]) -> int:
    """The channels that mixers of those names all hand out. Raises `OptionsError` where one hands out none, or others
    than the rest."""
    for name, width in zip(names, widths, strict=True):
        if width is None:
            raise OptionsError(
                f"project = shared with {name}, which ends in no projection of its own: choose another mixer, or "
                "project = each"
            )
    first, *others = [width for width in widths if width is not None]
    if any(width != first for width in others):
        told = ", ".join(f"{width} of {name}" for name, width in zip(names, widths, strict=True))
        raise OptionsError(
            f"project = shared joins as many channels of each mixer, not {told}: choose sizes that agree, or project = "
            "each"
        )
    return first


def _whole(part: float, share: float, name: str, total: int, count: int) -> int:
    own = round(part * total)
    if own < 1 or abs(own - part * total) > 1e-6 * total:
        raise OptionsError(
            f"share = {share:g} of {name} = {total} between {count} mixers leaves {part * total:g} for one of them: "
            "choose a share of whole heads, or 0 for all heads each"
        )
    return own
