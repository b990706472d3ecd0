"""Effects: what the share of a family, the granularity of decay and the place of a layer do to an objective."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from archsearch.analysis.composition import Fit, composition
from archsearch.analysis.contrasts import Contrast, Values, clear, contrast, mean_error
from archsearch.analysis.designs import Codes, Designs, Layer

DECAYS = ("none", "constant", "head", "channel")
"""Granularities of decay, from the coarsest."""

OPTION = "decay"
_FOLLOWS = frozenset({OPTION, f"{OPTION}_form"})
"""Options that change when the granularity does."""

LEVEL_COLUMNS = ("level", "mean", "error", "candidates")
"""One row a level: the mean of the objective, its standard error and of how many candidates."""

Mask = npt.NDArray[np.bool_]


CHANGE_COLUMNS = ("before", "after", "method", "mean", "error", "count", "clear")
"""One row a change of one layer: the mean change of the objective and its standard error. The `method` "pairs"
compares candidates that differ in nothing else, `count` of them; "fit" is a linear fit over `count` candidates that
holds the numbers of all other kinds of layers equal. `clear` says that the change is told from zero with 95%
confidence. Only what can be told has a row."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """``levels`` compares all candidates of a level, whatever else differs, ``changes`` one layer with another."""

    levels: pd.DataFrame
    changes: pd.DataFrame


def share_effect(designs: Designs, values: Values, belongs: Callable[[str], bool]) -> Effect:
    """The effect of how many layers' mixers belong to a family, and of one that does in place of one that does not.

    `values` `[n]` are the objective's, NaN where a candidate has none.
    """
    inside = _inside(designs, belongs)
    counts = inside.sum(axis=1)
    levels = [(f"{count} of {designs.depth}", counts == count) for count in np.unique(counts).tolist()]
    places, first, second = designs.changes(np.zeros_like(designs.codes))
    step = inside[second, places].astype(int) - inside[first, places].astype(int)
    before, after = (np.where(step > 0, *pair)[step != 0] for pair in ((first, second), (second, first)))
    kinds = np.array([belongs(str(layer["mixer"])) for layer in designs.layers], dtype=bool)
    used = np.bincount(designs.codes.ravel(), minlength=len(kinds)).astype(np.float64)
    weights = _average(used * kinds) - _average(used * ~kinds) if kinds.any() and not kinds.all() else used * 0.0
    changes = _changes([("another", "this", contrast(values, before, after), composition(designs, values, weights))])
    return Effect(levels=_levels(values, levels), changes=changes)


def decay_effect(designs: Designs, values: Values) -> Effect:
    """The effect of the granularity of decay; ``levels`` holds candidates whose layers that have one all have the same.

    Pairs differ in the decay of one layer (and the form that follows from it) alone, whatever decay others have.
    """
    names, codes = _named(designs, _decay)
    present = [name for name in DECAYS if name in names]
    levels = []
    for name in present:
        has, is_it = codes != names.get("", -1), codes == names[name]
        levels.append((name, has.any(axis=1) & (has == is_it).all(axis=1)))
    places, first, second = designs.changes(designs.each(_without_decay))
    left, right = codes[first, places], codes[second, places]
    rows = []
    for low, high in combinations(present, 2):
        rising = (left == names[low]) & (right == names[high])
        falling = (left == names[high]) & (right == names[low])
        before, after = (
            np.concatenate([one[rising], other[falling]]) for one, other in ((first, second), (second, first))
        )
        fit = composition(designs, values, _decay_weights(designs, low, high))
        rows.append((low, high, contrast(values, before, after), fit))
    return Effect(levels=_levels(values, levels), changes=_changes(rows))


def _decay_weights(designs: Designs, low: str, high: str) -> Values:
    """Of layers that occur with both decays, those with `high` less those with `low`: `[n_layers]`."""
    groups: dict[Hashable, dict[str, list[int]]] = {}
    for number, layer in enumerate(designs.layers):
        groups.setdefault(_without_decay(layer), {}).setdefault(_decay(layer), []).append(number)
    both = [group for group in groups.values() if low in group and high in group]
    weights: Values = np.zeros(len(designs.layers))
    for group in both:
        weights[group[high]] += 1.0 / (len(both) * len(group[high]))
        weights[group[low]] -= 1.0 / (len(both) * len(group[low]))
    return weights


def _average(used: Values) -> Values:
    shares: Values = used / used.sum()
    return shares


def _clear(found: Contrast | Fit) -> bool:
    return clear(found.mean, found.error, found.freedom)


def _changes(rows: Sequence[tuple[str, str, Contrast, Fit]]) -> pd.DataFrame:
    found = []
    for before, after, pairs, fit in rows:
        if pairs.pairs:
            found.append((before, after, "pairs", pairs.mean, pairs.error, pairs.pairs, _clear(pairs)))
        if fit.candidates:
            found.append((before, after, "fit", fit.mean, fit.error, fit.candidates, _clear(fit)))
    return pd.DataFrame(found, columns=list(CHANGE_COLUMNS))


PLACE_COLUMNS = ("low", "high", "mean", "error", "pairs", "candidates")
"""One row a pair of layers, counted from 0: the mean change when the family's layer moves from the lower to the
higher, everything else equal but the layer that it changes places with."""


@dataclass(frozen=True, kw_only=True)
class PlaceEffect:
    """``levels`` compares candidates with and without the family at each layer, ``moves`` has `PLACE_COLUMNS`,
    and ``later`` is the mean over all moves to a later layer."""

    levels: pd.DataFrame
    moves: pd.DataFrame
    later: Contrast


def place_effect(designs: Designs, values: Values, belongs: Callable[[str], bool]) -> PlaceEffect:
    """The effect of which layers' mixers belong to a family.

    Moves are pairs of candidates that differ by a swap of two layers, of which one belongs to the family.
    """
    inside = _inside(designs, belongs)
    levels = [(f"layer {place + 1}", inside[:, place]) for place in range(designs.depth)]
    lows, highs, first, second = designs.swaps()
    early, late = inside[first, lows], inside[first, highs]
    moved = early != late
    before, after = (np.where(early, *pair)[moved] for pair in ((first, second), (second, first)))
    lows, highs = lows[moved], highs[moved]
    return PlaceEffect(
        levels=_levels(values, levels),
        moves=pd.DataFrame(_moves(values, lows, highs, before, after), columns=list(PLACE_COLUMNS)),
        later=contrast(values, before, after),
    )


def _moves(values: Values, lows: Codes, highs: Codes, before: Codes, after: Codes) -> Iterator[tuple[Any, ...]]:
    for low, high in sorted(set(zip(lows.tolist(), highs.tolist(), strict=True))):
        here = (lows == low) & (highs == high)
        found = contrast(values, before[here], after[here])
        if found.pairs:
            yield low, high, found.mean, found.error, found.pairs, found.candidates


def _inside(designs: Designs, belongs: Callable[[str], bool]) -> Mask:
    """Which layers' mixers belong: `[n, depth]`."""
    names, codes = _named(designs, lambda layer: belongs(str(layer["mixer"])))
    inside: Mask = codes == names.get(True, -1)
    return inside


def _named(designs: Designs, describe: Callable[[Layer], Hashable]) -> tuple[dict[Hashable, int], Codes]:
    """`Designs.each`, and the number of each answer."""
    codes = designs.each(describe)
    answers = [describe(layer) for layer in designs.layers]
    return {answer: number for number, answer in enumerate(dict.fromkeys(answers))}, codes


def _decay(layer: Layer) -> str:
    return str(_options(layer).get(OPTION, ""))


def _without_decay(layer: Layer) -> Hashable:
    """What is equal for layers that differ in their decay alone; a layer without one equals only itself."""
    options, own = _options(layer), str(layer.get("ffn_dim", ""))
    if OPTION not in options:
        return str(layer["mixer"]), str(sorted(options.items())), own, "no decay"
    rest = {key: value for key, value in options.items() if key not in _FOLLOWS}
    return str(layer["mixer"]), str(sorted(rest.items())), own


def _options(layer: Layer) -> Mapping[str, Any]:
    options: Mapping[str, Any] = layer.get("options", {})
    return options


def _levels(values: Values, levels: Sequence[tuple[str, Mask]]) -> pd.DataFrame:
    rows = []
    for name, mask in levels:
        held = values[mask & np.isfinite(values)]
        if len(held):
            rows.append((name, *mean_error(held), len(held)))
    return pd.DataFrame(rows, columns=list(LEVEL_COLUMNS))
