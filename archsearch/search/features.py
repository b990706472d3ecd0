"""Features of candidates for a surrogate: kernels over what stands in which layer, how much of it, and beside what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from archsearch.analysis.objectives import Values
from archsearch.arch import ArchSpec
from archsearch.layer import LayerSpec
from archsearch.registry import Registry
from archsearch.search.space import Space

KERNELS = (
    *("share", "position", "neighbours", "presence", "near", "nearer", "near_share"),
    *("first", "last", "first_and_share", "last_and_share"),
)
"""What `Features.kernels` gives, in this order, before the backbone's."""

_FAMILY, _MIXER, _OPTIONS = 0.3, 0.4, 0.3
"""How alike two layers are by their family, their mixer and its options; 1 in all."""
_MOST_THRESHOLDS = 16


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Candidates as arrays: layers `[n, layers * features]` scaled so that a candidate with itself is 1, the first and
    the last one `[n, features]`, their mean `[n, features]`, neighbours `[n, pairs]`, which mixers stand in it
    `[n, mixers]`, and backbones `[n, values]`."""

    layers: Values
    first: Values
    last: Values
    share: Values
    pairs: Values
    presence: Values
    backbone: Values

    def __len__(self) -> int:
        return len(self.layers)

    def joined(self, other: Encoded) -> Encoded:
        """Both, one after the other."""
        return Encoded.stacked([self, other])

    def row(self, index: int) -> Encoded:
        """One of the candidates."""
        return Encoded(**{part.name: getattr(self, part.name)[index : index + 1] for part in fields(self)})

    @classmethod
    def stacked(cls, parts: Sequence[Encoded]) -> Encoded:
        """All candidates of several, at least one."""
        return cls(**{part.name: np.vstack([getattr(one, part.name) for one in parts]) for part in fields(cls)})


class Features:
    """Turns the candidates of a space into arrays, and those into kernels.

    Layers are alike by their family, their mixer and its options; numbers are the more alike the fewer of the space's
    values lie between them.
    """

    def __init__(self, space: Space, registry: Registry) -> None:
        layers, self._depth = space.layers, space.n_layers
        self._mixers = {name: index for index, name in enumerate(dict.fromkeys(layer.mixer for layer in layers))}
        family = {name: registry.resolve(name).plugin.family for name in self._mixers}
        families = list(dict.fromkeys(family.values()))
        self._family = {name: families.index(family[name]) for name in self._mixers}
        self._families = len(families)
        self._options: dict[str, dict[str, Callable[[Any], Values]]] = {
            name: _encoders([_values(layer) for layer in layers if layer.mixer == name]) for name in self._mixers
        }
        self._backbone = _encoders([dict(backbone.values) for backbone in space.backbones.all])
        self._keys = {backbone.model: backbone.values for backbone in space.backbones.all}
        self._vectors: dict[LayerSpec, Values] = {}
        self._widths = {name: sum(len(made(None)) for made in found.values()) for name, found in self._options.items()}

    def describe(self, arch: ArchSpec) -> bool:
        """Whether a candidate, which need not be of the space, has features: it is as deep and of the same mixers."""
        return len(arch.layers) == self._depth and all(layer.mixer in self._mixers for layer in arch.layers)

    def encode(self, archs: Sequence[ArchSpec]) -> Encoded:
        """The arrays of candidates, at least one."""
        layers = np.array([[self._vector(layer) for layer in arch.layers] for arch in archs])
        count, depth = layers.shape[:2]
        mixers = np.array([[self._mixers[layer.mixer] for layer in arch.layers] for arch in archs])
        presence = np.zeros((count, len(self._mixers)))
        np.put_along_axis(presence, mixers, 1.0, axis=1)
        pairs = np.zeros((count, len(self._mixers) ** 2))
        beside = mixers[:, :-1] * len(self._mixers) + mixers[:, 1:]
        for column in beside.T:
            pairs[np.arange(count), column] += 1.0
        length = np.linalg.norm(pairs, axis=1, keepdims=True)
        return Encoded(
            layers=layers.reshape(count, -1) / np.sqrt(depth),
            first=layers[:, 0],
            last=layers[:, -1],
            share=layers.mean(axis=1),
            pairs=pairs / np.where(length > 0, length, 1.0),
            presence=presence,
            backbone=np.array([self._backbone_vector(arch) for arch in archs]).reshape(count, -1),
        )

    def kernels(self, one: Encoded, other: Encoded) -> Values:
        """`[kernels, n, m]`, each positive semidefinite and at most 1: those of `KERNELS`, and where the space has
        several backbones theirs, by which the others are weighted too."""
        share, position = one.share @ other.share.T, one.layers @ other.layers.T
        both = one.presence @ other.presence.T
        either = one.presence.sum(axis=1)[:, None] + other.presence.sum(axis=1)[None] - both
        own = (one.share**2).sum(axis=1)[:, None] + (other.share**2).sum(axis=1)[None]
        near_share = np.exp(-4.0 * np.maximum(own - 2.0 * share, 0.0))
        first, last = one.first @ other.first.T, one.last @ other.last.T
        found = [
            share,
            position,
            one.pairs @ other.pairs.T,
            both / either,
            np.exp(2.0 * (position - 1.0)),
            np.exp(6.0 * (position - 1.0)),
            near_share,
            first,
            last,
            first * near_share,
            last * near_share,
        ]
        if self._backbone:
            alike = one.backbone @ other.backbone.T
            found = [kernel * (0.5 + 0.5 * alike) for kernel in found] + [alike]
        return np.array(found)

    def own(self, one: Encoded) -> Values:
        """`[kernels, n]`: each candidate with itself."""
        ones = np.ones(len(one))
        share, position, pairs, first, last = (
            (part**2).sum(axis=1) for part in (one.share, one.layers, one.pairs, one.first, one.last)
        )
        near, nearer = np.exp(2.0 * (position - 1.0)), np.exp(6.0 * (position - 1.0))
        found = [share, position, pairs, ones, near, nearer, ones, first, last, first, last]
        return np.array([*found, ones] if self._backbone else found)

    @property
    def count(self) -> int:
        """How many kernels there are."""
        return len(KERNELS) + bool(self._backbone)

    def _vector(self, layer: LayerSpec) -> Values:
        found = self._vectors.get(layer)
        if found is None:
            found = self._vectors[layer] = self._made(layer)
        return found

    def _made(self, layer: LayerSpec) -> Values:
        family = np.zeros(self._families)
        family[self._family[layer.mixer]] = np.sqrt(_FAMILY)
        mixer = np.zeros(len(self._mixers))
        mixer[self._mixers[layer.mixer]] = np.sqrt(_MIXER)
        parts = [family, mixer]
        values = _values(layer)
        for name, encoders in self._options.items():
            if name != layer.mixer:
                parts.append(np.zeros(self._widths[name]))
                continue
            own = [encode(values.get(option)) for option, encode in encoders.items()]
            parts.extend(part * np.sqrt(_OPTIONS / len(own)) for part in own)
        if not self._options[layer.mixer]:
            parts[1] = mixer * np.sqrt((_MIXER + _OPTIONS) / _MIXER)
        return np.concatenate(parts)

    def _backbone_vector(self, arch: ArchSpec) -> Values:
        if not self._backbone:
            return np.zeros(0)
        values = self._keys.get(arch.model, {})
        parts = [encode(values.get(key)) for key, encode in self._backbone.items()]
        vector: Values = np.concatenate(parts) / np.sqrt(len(parts))
        return vector


def _values(layer: LayerSpec) -> dict[str, Any]:
    own = {} if layer.ffn_dim is None else {"ffn_dim": layer.ffn_dim}
    return {name: getattr(layer.options, name) for name in type(layer.options).model_fields} | own


def _encoders(given: Iterable[Mapping[str, Any]]) -> dict[str, Callable[[Any], Values]]:
    """For each key that has several values, what turns one into a vector of length 1."""
    seen: dict[str, dict[str, Any]] = {}
    for values in given:
        for key, value in values.items():
            seen.setdefault(key, {})[repr(value)] = value
    return {key: _encoder(list(values.values())) for key, values in seen.items() if len(values) > 1}


def _encoder(values: Sequence[Any]) -> Callable[[Any], Values]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        ordered = np.unique(np.array(values, dtype=np.float64))
        between = (ordered[1:] + ordered[:-1]) / 2
        if len(between) > _MOST_THRESHOLDS:
            between = between[np.linspace(0, len(between) - 1, _MOST_THRESHOLDS).astype(int)]

        def encode_number(value: Any) -> Values:
            signs = np.where(between < (-np.inf if value is None else value), 1.0, -1.0)
            vector: Values = signs / np.sqrt(len(between))
            return vector

        return encode_number
    places = {repr(value): index for index, value in enumerate(values)}

    def encode_choice(value: Any) -> Values:
        vector = np.zeros(len(places))
        if repr(value) in places:
            vector[places[repr(value)]] = 1.0
        return vector

    return encode_choice
