"""Sizes of a mixer's state: layers of one mixer from a small state to a large one, by arithmetic alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.costs import ArchCost, CostModel
from archsearch.errors import ArchsearchError, SpecError
from archsearch.exercise import Unexercised, unexercised_layers
from archsearch.laws import untrainable
from archsearch.layer import LayerSpec
from archsearch.notation import parse_call
from archsearch.registry import Registry
from archsearch.search.variants import free_options

LEAST = 4
"""The smallest size that is tried."""

FACTOR = 1.5
"""An option sizes a state where its largest value makes at least so much more of it than its smallest."""

_MEASURES = ("state_bytes", "decode_read_bytes")
"""What a size is of: what is kept, else what a token reads of it, which is what a sparse mixer chooses."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where layers are tried: a backbone, its number of layers, and the lengths of tasks (tokens), the longest last."""

    model: ModelSpec
    n_layers: int
    lengths: tuple[int, ...]
    registry: Registry

    def fault(self, layer: LayerSpec) -> str | None:
        """Why a model of this layer alone would not be trained, None where it would."""
        arch = self.arch(layer)
        refused = refusal(arch, self.registry) or untrainable(arch, self.registry)
        if refused is not None:
            return refused
        found = (self._unexercised(arch, length) for length in self.lengths)
        return next((str(one) for some in found for one in some), None)

    def _unexercised(self, arch: ArchSpec, length: int) -> tuple[Unexercised, ...]:
        return unexercised_layers(arch, f"a task of the sweep with {length} tokens", length, self.registry)

    def pattern(self, layer: LayerSpec) -> str:
        """The notation of a model of this layer alone."""
        return self.arch(layer).pattern(self.registry)

    def arch(self, layer: LayerSpec) -> ArchSpec:
        """A model of this layer alone."""
        return ArchSpec(model=self.model, layers=(layer,) * self.n_layers)

    def cost(self, layer: LayerSpec) -> ArchCost:
        """What that costs at the longest of the lengths."""
        return CostModel(self.registry).cost(self.arch(layer), self.lengths[-1])


def sized_layers(
    name: str,
    narrowed: Mapping[str, Sequence[Any]],
    place: Place,
    count: int,
) -> tuple[LayerSpec, ...]:
    """Layers of a mixer, a preset or one with options written out, from its smallest state to its largest.

    They have the values that `narrowed` lists, all combinations, or else `count` values of one option, powers of 2 up
    to the longest of the lengths (tokens), evenly chosen of those that can be trained at all of them. Empty where no
    option sizes a state.

    Raises `SpecError` for values that would not be trained, and what making a layer raises.
    """
    if narrowed:
        return tuple(_listed(name, narrowed, place))
    for measure in _MEASURES:
        found = max(
            (_of_option(name, option, measure, place) for option in _whole_options(name, place.registry)),
            key=_span,
            default={},
        )
        if _span(found) >= FACTOR:
            return _evenly([found[size] for size in sorted(found)], count)
    fault = place.fault(made(name, place.registry))
    if fault is not None:
        raise SpecError(f'{name}: {fault}: write smaller options, as "{name}(OPTION=VALUE)", or longer tasks')
    return ()


def made(name: str, registry: Registry, **options: Any) -> LayerSpec:
    """The layer of a mixer, a preset or one with options written out, with further options."""
    bare, _, written = parse_call(name, registry)
    return LayerSpec.make(bare, registry, **{**written, **options})


def _listed(name: str, narrowed: Mapping[str, Sequence[Any]], place: Place) -> Iterator[LayerSpec]:
    for values in itertools.product(*narrowed.values()):
        given = dict(zip(narrowed, values, strict=True))
        layer = made(name, place.registry, **given)
        fault = place.fault(layer)
        if fault is not None:
            written = ", ".join(f"{key} = {value}" for key, value in given.items())
            raise SpecError(f"space.{name}: with {written} it would not be trained: {fault}: drop the value")
        yield layer


def _whole_options(name: str, registry: Registry) -> list[str]:
    """The options that a search may choose and that are whole numbers."""
    bare, _, written = parse_call(name, registry)
    resolved = registry.resolve(bare)
    free = free_options(resolved.plugin, {**resolved.preset, **written})
    return [option for option, choices in free.items() if all(type(choice) is int for choice in choices)]


def _of_option(name: str, option: str, measure: str, place: Place) -> dict[float, LayerSpec]:
    """The layers that can be trained, by what they cost, of values of one option."""
    found: dict[float, LayerSpec] = {}
    size = LEAST
    while size <= place.lengths[-1]:
        try:
            layer = made(name, place.registry, **{option: size})
            if place.fault(layer) is None:
                found.setdefault(place.cost(layer).measure(measure), layer)
        except ArchsearchError:
            pass  # no value of this option on this backbone
        size *= 2
    return found


def _span(found: Mapping[float, LayerSpec]) -> float:
    """How many times the smallest size the largest one is."""
    return max(found) / min(found) if found and min(found) > 0 else 0.0


def _evenly(layers: Sequence[LayerSpec], count: int) -> tuple[LayerSpec, ...]:
    """`count` of them at most, with both ends."""
    if count >= len(layers):
        return tuple(layers)
    if count == 1:
        return (layers[len(layers) // 2],)
    return tuple(layers[round(index * (len(layers) - 1) / (count - 1))] for index in range(count))
