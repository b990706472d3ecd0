"""Parts of a layer: the mixers that one is made of by their paths, whose options are sized like a layer's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.composition import placed
from archsearch.layer import LayerSpec, named_layers
from archsearch.registry import Registry


def parts(layer: LayerSpec, path: str = "") -> Iterator[tuple[str, LayerSpec]]:
    """A layer under the path "", then the mixers that its options hold, in the order of declaration, each with those
    that it is made of: "a", "more.0", "a.b"."""
    yield path, layer
    for key, held in named_layers(layer.options):
        yield from parts(held, f"{path}.{key}" if path else key)


def part_of(name: str) -> str:
    """The path of the part that an option belongs to: "a" of "a.window", "" of a layer's own."""
    return name.rpartition(".")[0]


def option_at(layer: LayerSpec, name: str) -> tuple[LayerSpec, str]:
    """The part that an option belongs to, and its name there."""
    path, _, own = name.rpartition(".")
    return dict(parts(layer))[path], own


def with_option(layer: LayerSpec, name: str, value: Any, registry: Registry) -> LayerSpec:
    """The layer with another value of an option, which may be one of a part: "a.window". Raises what making it
    raises."""
    values = {key: getattr(layer.options, key) for key in type(layer.options).model_fields}
    key, _, rest = name.partition(".")
    if rest and isinstance(values[key], tuple):
        at, _, rest = rest.partition(".")
        held = list(values[key])
        held[int(at)] = with_option(held[int(at)], rest, value, registry)
        values[key] = tuple(held)
    else:
        values[key] = with_option(values[key], rest, value, registry) if rest else value
    return LayerSpec.make(layer.mixer, registry, **values).with_ffn_dim(layer.ffn_dim)


def part_reads(arch: ArchSpec, place: int, registry: Registry, context: int) -> dict[str, float] | None:
    """Bytes of state that one decoded token reads of each part of a layer itself, by path, those of its own parts
    apart; None of a mixer that says itself what it is made of."""
    paths = list(parts(arch.layers[place]))
    found = list(placed(arch, place, registry))
    if [part for _, part in paths] != [one.layer for one in found]:
        return None
    whole = {
        path: one.figures(registry).traffic(context=context).read_bytes
        for (path, _), one in zip(paths, found, strict=True)
    }
    own = dict(whole)
    for path in whole:
        above = _above(path, whole)
        if above is not None:
            own[above] -= whole[path]
    return own


def _above(path: str, paths: dict[str, float]) -> str | None:
    """The path of the mixer that a part belongs to, None for the layer itself."""
    if not path:
        return None
    above = part_of(path)
    while above not in paths:  # "more.0" belongs to the layer whose option "more" is
        above = part_of(above)
    return above
