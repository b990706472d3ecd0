"""Designs: the layers of many candidates as arrays, so that those that differ in one thing are found at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from archsearch.errors import SpecError

Layer = Mapping[str, Any]
"""A stored layer: ``{"mixer": name, "options": {...}}``, and ``"ffn_dim"`` where it has a width of its own."""

Codes = npt.NDArray[np.int64]
_SEED = 20250101


@dataclass(frozen=True, kw_only=True)
class Designs:
    """Candidates of one depth: ``codes`` `[n, depth]` point into ``layers``, the distinct layers that occur, and
    ``backbones`` `[n]` are equal where the backbones are."""

    codes: Codes
    layers: tuple[Layer, ...]
    backbones: Codes

    @classmethod
    def of(cls, archs: Sequence[Mapping[str, Any]]) -> Designs:
        """Of stored architectures; raises `SpecError` when their depths differ, as they never do in one search."""
        depths = {len(arch["layers"]) for arch in archs}
        if len(depths) > 1:
            raise SpecError(f"candidates of {len(depths)} depths cannot be matched layer by layer: take one search")
        layers: dict[str, Layer] = {}
        numbers: dict[str, int] = {}
        rows = []
        for arch in archs:
            row = []
            for layer in arch["layers"]:
                text = _text(layer)
                row.append(numbers.setdefault(text, len(numbers)))
                layers.setdefault(text, layer)
            rows.append(row)
        codes = np.array(rows, dtype=np.int64).reshape(len(archs), max(depths, default=0))
        texts = [json.dumps(arch.get("model"), sort_keys=True, default=str) for arch in archs]
        known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        backbones = np.array([known[text] for text in texts], dtype=np.int64)
        return cls(codes=codes, layers=tuple(layers.values()), backbones=backbones)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def depth(self) -> int:
        """Layers of each candidate."""
        return int(self.codes.shape[1])

    def each(self, describe: Callable[[Layer], Hashable]) -> Codes:
        """A number for what `describe` says of every layer, equal for equal answers: `[n, depth]`."""
        numbers: dict[Hashable, int] = {}
        table = [numbers.setdefault(describe(layer), len(numbers)) for layer in self.layers]
        return np.array(table, dtype=np.int64)[self.codes] if table else self.codes

    def changes(self, rest: Codes) -> tuple[Codes, Codes, Codes]:
        """Pairs of candidates that differ in one layer alone, and there not in `rest` `[n, depth]`.

        Returns the layer and the two candidates of each pair, `[n_pairs]` each.
        """
        found: list[tuple[Codes, Codes, Codes]] = [_none()]
        for place in range(self.depth):
            others = self._hashes - self._keys[place, self.codes[:, place]]
            groups = _groups(others + _spread(rest[:, place]))
            for group in groups:
                first, second = (group[index] for index in np.triu_indices(len(group), 1))
                same = rest[first, place] == rest[second, place]
                same &= self._agree(first, second, [place]) & (self.codes[first, place] != self.codes[second, place])
                found.append((np.full(int(same.sum()), place, dtype=np.int64), first[same], second[same]))
        places, firsts, seconds = (np.concatenate(part) for part in zip(*found, strict=True))
        return places, firsts, seconds

    def swaps(self) -> tuple[Codes, Codes, Codes, Codes]:
        """Pairs of candidates that become equal when two different layers of one change places.

        Returns the lower and the higher layer and the two candidates of each pair, `[n_pairs]` each; every pair
        comes once.
        """
        order = np.argsort(self._hashes, kind="stable")
        ordered = self._hashes[order]
        found: list[tuple[Codes, Codes, Codes, Codes]] = [(*_none(), _none()[0])]
        for low in range(self.depth):
            for high in range(low + 1, self.depth):
                left, right = self.codes[:, low], self.codes[:, high]
                candidates = np.flatnonzero(left < right)
                wanted = self._swapped(candidates, low, high)
                spots = np.minimum(np.searchsorted(ordered, wanted), max(len(order) - 1, 0))
                hit = ordered[spots] == wanted if len(order) else np.zeros(0, dtype=bool)
                first, second = candidates[hit], order[spots[hit]]
                same = self._agree(first, second, [low, high])
                same &= (left[first] == right[second]) & (right[first] == left[second])
                first, second = first[same], second[same]
                found.append((np.full(len(first), low), np.full(len(first), high), first, second))
        lows, highs, firsts, seconds = (np.concatenate(part) for part in zip(*found, strict=True))
        return lows, highs, firsts, seconds

    def _swapped(self, rows: Codes, low: int, high: int) -> Codes:
        """The hashes of `rows` after layers `low` and `high` changed places."""
        left, right = self.codes[rows, low], self.codes[rows, high]
        keys = self._keys
        gone, come = keys[low, left] + keys[high, right], keys[low, right] + keys[high, left]
        hashes: Codes = self._hashes[rows] - gone + come
        return hashes

    def _agree(self, first: Codes, second: Codes, but: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Whether two candidates are equal in their backbones, and in every layer `but` some."""
        kept = np.delete(self.codes, but, axis=1)
        agree: npt.NDArray[np.bool_] = (kept[first] == kept[second]).all(axis=1)
        agree &= self.backbones[first] == self.backbones[second]
        return agree

    @cached_property
    def _keys(self) -> Codes:
        """A random number for each layer at each place: `[depth, n_layers]`; sums of them wrap around."""
        bounds = np.iinfo(np.int64)
        size = (self.depth, max(len(self.layers), 1))
        return np.random.default_rng(_SEED).integers(bounds.min, bounds.max, size=size)

    @cached_property
    def _hashes(self) -> Codes:
        """Sums of the candidates' random numbers: equal for equal candidates, and as good as never else."""
        sums: Codes = self._keys[np.arange(self.depth), self.codes].sum(axis=1)
        return sums + self.backbones * np.int64(0x51ED270B7F2A9C3D)


def _text(layer: Layer) -> str:
    told = [layer["mixer"], layer.get("options", {})]
    own = [layer["ffn_dim"]] if layer.get("ffn_dim") is not None else []
    return json.dumps([*told, *own], sort_keys=True, default=str)


def _spread(codes: Codes) -> Codes:
    """Small numbers as large ones that do not cancel against the keys of layers."""
    return (codes + 1) * np.int64(0x1E3779B97F4A7C15)


def _groups(hashes: Codes) -> list[Codes]:
    """Rows of equal hashes, of two and more."""
    order = np.argsort(hashes, kind="stable")
    cuts = np.flatnonzero(np.diff(hashes[order])) + 1
    return [group for group in np.split(order, cuts) if len(group) > 1]


def _none() -> tuple[Codes, Codes, Codes]:
    empty = np.zeros(0, dtype=np.int64)
    return empty, empty, empty
